"""Measures the node beside what it is held against, all in one run on one machine: ``python -m bench``.

A scenario is one file in ``bench/scenarios``: an async generator that sets up what it needs, measures, and yields the rows of the
table. ``bench.registry`` finds it, ``bench.load`` makes load, ``bench.servers`` starts the sides. Nothing here is a
test: a missed aim is printed, and the exit status stays 0.
"""
