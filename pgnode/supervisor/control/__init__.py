"""Answers operators: what the supervisor knows of the node, over a socket in the run folder, without the bus."""
