"""The supervisor: the one process that owns the core, the desired users, the traffic ledger and all other processes.

Start reading at :mod:`pgnode.supervisor.main`. Which rooms there are, and which way imports run between them, is in
docs/architecture.md.
"""
