"""The Xray core seen from outside: its config, its API and its process. Knows no Redis and no HTTP server."""
