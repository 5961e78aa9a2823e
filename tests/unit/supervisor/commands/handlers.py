"""Handlers for tests that need only some of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pgnode.bus.commands import Command, Kind
from pgnode.supervisor.commands.dispatcher import Answers, Handler, Handlers, Step


async def _nobody(_commands: Sequence[Command], _noted: Callable[[], None]) -> Answers:
    raise AssertionError("no user changes were expected")


def _nothing(command: Command) -> Any:
    raise AssertionError(f"{command!r} was not expected")


def handlers(
    *,
    changes: Mapping[Kind, Handler] | None = None,
    queries: Mapping[Kind, Handler] | None = None,
    inspections: Mapping[Kind, Handler] | None = None,
    sync: Callable[[Sequence[Command], Callable[[], None]], Awaitable[Answers]] = _nobody,
    begin: Callable[[Command], Step] = _nothing,
    maintain: Callable[[Command], None] = _nothing,
) -> Handlers:
    """Those that are given; anything else that is asked for is an error of the test."""
    return Handlers(changes or {}, queries or {}, inspections or {}, sync, begin, maintain)
