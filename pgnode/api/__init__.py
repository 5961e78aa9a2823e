"""What the node offers its callers: the table of methods, the service with all rules, and its faces (REST, gRPC)."""
