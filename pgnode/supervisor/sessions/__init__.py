"""Connections of users who are gone: whose they are, and how they are ended."""
