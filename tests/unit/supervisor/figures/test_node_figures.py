"""What is gathered is one moment: nobody changes it afterwards."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from pgnode.supervisor.figures.node_figures import BusFigures, ProcessFigures


def test_figures_never_change() -> None:
    with pytest.raises(FrozenInstanceError):
        ProcessFigures(1.0, 2, 3, 4).open_files = 5  # type: ignore[misc]


def test_a_bus_that_does_not_answer_has_no_figures_but_its_refills() -> None:
    bus = BusFigures(3)
    assert (bus.refills, bus.commands_waiting, bus.round_trip_seconds, bus.memory_bytes) == (3, None, None, None)
