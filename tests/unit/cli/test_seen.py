"""What was found out about a node, as data."""

from __future__ import annotations

from tests.unit.cli.seen_node import FACTS


def test_workers_are_told_apart() -> None:
    assert (FACTS.pids_of("rest"), FACTS.pids_of("grpc"), FACTS.pids_of("valkey")) == ([51, 52], [6], [])
