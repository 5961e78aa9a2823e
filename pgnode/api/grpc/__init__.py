"""The gRPC face: handlers made from the method table, what every call passes, health and reflection."""
