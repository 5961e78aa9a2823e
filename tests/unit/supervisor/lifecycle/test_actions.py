"""Actions as data."""

from __future__ import annotations

import dataclasses

import pytest

from pgnode.supervisor.lifecycle import actions
from pgnode.supervisor.lifecycle.actions import Action, Question
from pgnode.testing.faults import known_points

KINDS = [kind for kind in vars(actions).values() if isinstance(kind, type) and issubclass(kind, Action)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_action_is_frozen_and_says_what_it_asks_for(kind: type[Action]) -> None:
    assert dataclasses.is_dataclass(kind)
    assert kind.__doc__
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_equal_actions_are_equal() -> None:
    assert actions.LingerFor(1.0) == actions.LingerFor(1.0) != actions.LingerFor(2.0)
    assert issubclass(actions.EndCore, Question)
    assert not issubclass(actions.Publish, Question)


def test_each_step_has_a_fault_point_of_its_own() -> None:
    assert actions.STEP_POINTS.keys() == set(KINDS) - {Action, Question}
    assert actions.STEP_POINTS[actions.TakeOverCore] == "step.take_over_core"
    assert len(set(actions.STEP_POINTS.values())) == len(actions.STEP_POINTS)
    assert set(actions.STEP_POINTS.values()) <= known_points()
