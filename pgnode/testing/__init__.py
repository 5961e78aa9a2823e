"""The harness that tests, bench and demo share: a panel, nodes, users, a target and traffic."""
