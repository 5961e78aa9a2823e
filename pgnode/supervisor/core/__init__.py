"""The core's process as the supervisor holds it, and its log."""
