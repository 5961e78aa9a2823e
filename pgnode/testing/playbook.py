"""Scripts for state machines that are pure: ``Playbook(step, state) >> event << action << action >> event …``.

``>>`` feeds an event, ``<<`` names the next action that the machine has to ask for. Nothing may be left over when the next event
is fed, and at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, TypeVar

State = TypeVar("State")
Event = TypeVar("Event")
Action = TypeVar("Action")


class Playbook(Generic[State, Event, Action]):
    """One run of a machine. A context manager: at its end nothing may be left over.

    Args:
        step: The machine.
        state: Where it begins.
        name: The script's, for its errors.
    """

    def __init__(
        self, step: Callable[[State, Event], tuple[State, Sequence[Action]]], state: State, name: str = "playbook"
    ) -> None:
        self._step = step
        self._name = name
        self._line = 0
        self._expected: list[Action] = []
        #: The state after the last event.
        self.state = state
        #: Every action so far, in order.
        self.actions: list[Action] = []

    def __repr__(self) -> str:
        return f"<{self._name} line {self._line}, {self.state!r}>"

    def __enter__(self) -> Playbook[State, Event, Action]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.end()

    def __rshift__(self, event: Event | Callable[[Action], Event]) -> Playbook[State, Event, Action]:
        """Feed an event; a function makes it of the last action."""
        self.end()
        self._line += 1
        made: Event = event(self.actions[-1]) if callable(event) else event
        self.state, actions = self._step(self.state, made)
        self.actions += actions
        self._expected = list(actions)
        return self

    def __lshift__(self, action: Action) -> Playbook[State, Event, Action]:
        """Expect this action next."""
        self._line += 1
        assert self._expected, f"{self!r}: expected {action!r}, and nothing more was asked for"
        found = self._expected.pop(0)
        assert found == action, f"{self!r}: expected {action!r}, found {found!r}, then {self._expected!r}"
        return self

    def skip_to(self, kind: type[Action], make: Callable[[Action], Event]) -> Playbook[State, Event, Action]:
        """Go on with ``make(last action)`` until an action of this kind comes; what came before it is not looked at."""
        while not isinstance(self.actions[-1], kind):
            self._expected.clear()
            self.__rshift__(make)
        self._expected.clear()
        return self

    def end(self) -> State:
        """Check that nothing is left over; returns the state."""
        assert not self._expected, f"{self!r}: not expected: {self._expected!r}"
        return self.state
