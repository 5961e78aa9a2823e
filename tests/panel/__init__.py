"""The panel's own client, unmodified, drives a real node.

The client needs a newer Python than the node and registers messages of the same names, so it lives in an environment and
in a process of its own (:mod:`tests.panel.driver`), which the tests tell what to call.
"""
