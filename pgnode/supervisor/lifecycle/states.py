"""The life of the node as a table: state x event -> state. Pure; what is not listed is an error that names both."""

from __future__ import annotations

import enum

from pgnode.bus.state import WITH_CORE, State

__all__ = ["TABLE", "WITH_CORE", "Event", "State", "TransitionError", "mermaid", "next_state"]


class Event(enum.StrEnum):
    """What happens to the node."""

    START_REQUESTED = "start requested"  # /start that a running core cannot just go on with, or a config in the store
    CORE_READY = "core ready"  # a core answers and has its users
    START_FAILED = "start failed"  # no core came up, and no earlier one is left
    CORE_DIED = "core died"
    GAVE_UP = "gave up"  # too many deaths in a window, or a config that the core refuses
    STOP_REQUESTED = "stop requested"
    LINGER_ENDED = "linger ended"  # nobody took the core over in time
    CORE_STOPPED = "core stopped"


class TransitionError(RuntimeError):
    """An event in a state for which the table has no answer: a fault of the node."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"the event '{event}' has no meaning in the state '{state}'")
        self.state = state
        self.event = event


TABLE: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.START_REQUESTED): State.STARTING,
    (State.IDLE, Event.STOP_REQUESTED): State.IDLE,
    (State.STARTING, Event.CORE_READY): State.RUNNING,
    (State.STARTING, Event.START_FAILED): State.IDLE,
    (State.STARTING, Event.CORE_DIED): State.RECOVERING,
    (State.STARTING, Event.GAVE_UP): State.FAILED,
    (State.STARTING, Event.STOP_REQUESTED): State.STOPPING,
    (State.RUNNING, Event.START_REQUESTED): State.STARTING,
    (State.RUNNING, Event.CORE_DIED): State.RECOVERING,
    (State.RUNNING, Event.STOP_REQUESTED): State.LINGERING,
    (State.RECOVERING, Event.CORE_READY): State.RUNNING,
    (State.RECOVERING, Event.CORE_DIED): State.RECOVERING,
    (State.RECOVERING, Event.GAVE_UP): State.FAILED,
    (State.RECOVERING, Event.START_REQUESTED): State.STARTING,
    (State.RECOVERING, Event.STOP_REQUESTED): State.STOPPING,
    (State.FAILED, Event.START_REQUESTED): State.STARTING,
    (State.FAILED, Event.STOP_REQUESTED): State.STOPPING,
    (State.LINGERING, Event.START_REQUESTED): State.STARTING,
    (State.LINGERING, Event.STOP_REQUESTED): State.LINGERING,
    (State.LINGERING, Event.LINGER_ENDED): State.STOPPING,
    (State.LINGERING, Event.CORE_DIED): State.IDLE,
    (State.STOPPING, Event.CORE_STOPPED): State.IDLE,
}


def next_state(state: State, event: Event) -> State:
    """The state after ``event``; raises TransitionError when the table has none."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise TransitionError(state, event) from None


def mermaid() -> str:
    """The table as a Mermaid state diagram, as docs/architecture.md shows it."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.IDLE}"]
    lines += [f"    {state} --> {after}: {event}" for (state, event), after in TABLE.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    sys.stdout.write(mermaid() + "\n")
