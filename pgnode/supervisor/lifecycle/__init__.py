"""The life of the node: states, starts and stops, changes of the running core, recovery."""
