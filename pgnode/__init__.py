"""pgnode: a node for proxy panels. Runs the Xray core for a panel and answers for its users' traffic."""

#: The node's own version. The panel uses the chunked sync from 0.2.0 on.
__version__ = "0.6.0"
