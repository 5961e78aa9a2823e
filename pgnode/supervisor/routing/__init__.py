"""Routing rules that callers change, and questions about routing and latency."""
