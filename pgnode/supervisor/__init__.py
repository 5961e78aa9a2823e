"""The one process that owns things: the core, the desired users, the traffic ledger and every other process.

Pure parts, without clock, socket and Redis: states, restart, users, planner, ledger. Shells around I/O: main (the main
loop), node (commands and the life of the core), core_control, store, sampling, log_pump, children, identity.
"""
