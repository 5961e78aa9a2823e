"""What the node tells of itself in numbers: how they are counted, what they are called, and how they are written down."""
