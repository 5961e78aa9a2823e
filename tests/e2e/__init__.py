"""Whole nodes, as ``pgnode run`` starts them, used through real sockets by a panel and by real users."""
