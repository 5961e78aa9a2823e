"""The tests: unit mirrors pgnode/, integration has real parts, e2e, faults and panel whole nodes; support is shared."""
