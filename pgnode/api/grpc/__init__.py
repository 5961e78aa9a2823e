"""The node over gRPC: handlers made from the table of methods, what every call passes, health and reflection."""
