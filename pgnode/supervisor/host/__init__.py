"""The machine and the operator: identity, limits, load, memory, log format, the banner."""
