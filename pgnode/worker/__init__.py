"""A worker's insides: Gunicorn's config and hooks, the bus client, the local snapshots, the fan-out of log lines."""
