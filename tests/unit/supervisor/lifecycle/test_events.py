"""Events as data."""

from __future__ import annotations

import dataclasses

import pytest

from pgnode.supervisor.lifecycle import events
from pgnode.supervisor.lifecycle.actions import EndCore
from pgnode.supervisor.lifecycle.events import Event, News, Outcome, Request

KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_is_frozen_and_of_one_sort(kind: type[Event]) -> None:
    assert dataclasses.is_dataclass(kind)
    assert kind is Event or sum(issubclass(kind, sort) for sort in (Request, News, Outcome)) == 1
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_an_outcome_names_its_action() -> None:
    assert events.Done(EndCore()).action == EndCore()
