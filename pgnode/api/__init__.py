"""What the node offers its callers: the table of methods, the service with all rules, and both protocols (REST, gRPC)."""
