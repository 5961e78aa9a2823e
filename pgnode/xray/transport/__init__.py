"""How calls reach the core's API: a pipelined gRPC client over HTTP/2."""
