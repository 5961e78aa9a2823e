"""What the node's API does, whatever protocol carries the call."""
