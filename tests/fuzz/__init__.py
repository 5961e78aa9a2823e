"""Fuzzers, one for each door of the node: ``python -m tests.fuzz`` (``make fuzz``).

Inputs are made from a seed, the door's name and a number, and from nothing else, so that any of them can be made again.
:mod:`~tests.fuzz.doors` lists the doors, the modules that it imports make their inputs (pure), :mod:`~tests.fuzz.judge` says
what may be answered (pure), :mod:`~tests.fuzz.senders` sends, and :mod:`~tests.fuzz.stage` has the nodes and what must not
happen to them.
"""
