"""The node's durable state: one SQLite file, written by the supervisor alone. Knows no Redis."""
