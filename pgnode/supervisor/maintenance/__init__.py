"""Maintenance jobs: core updates, geo files, updates of the node itself."""
