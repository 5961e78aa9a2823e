"""Storing changes before they are answered, and publishing snapshots."""
