"""The states as they are on the bus: their names are what workers and operators' tools compare with."""

from __future__ import annotations

from pgnode.bus.state import WITH_CORE, State


def test_the_names_are_part_of_what_is_published() -> None:
    assert [str(state) for state in State] == [
        "restoring",
        "idle",
        "starting",
        "running",
        "recovering",
        "failed",
        "lingering",
        "stopping",
    ]
    assert {State.RUNNING, State.LINGERING} == WITH_CORE
