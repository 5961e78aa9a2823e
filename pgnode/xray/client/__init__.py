"""The client of the core's API."""
