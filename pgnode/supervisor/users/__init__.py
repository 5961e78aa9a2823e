"""Desired users, the users in the core, and how the one becomes the other."""
