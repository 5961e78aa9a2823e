"""Routing rules and balancers from JSON to the messages of the core's API."""
