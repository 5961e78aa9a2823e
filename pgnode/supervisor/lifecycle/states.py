"""The states of the node and the moves between them, as a table. Pure.

Which trigger an event is, the machine decides (:mod:`pgnode.supervisor.lifecycle.machine`).
"""

from __future__ import annotations

import enum

from pgnode.bus.state import WITH_CORE, State

__all__ = ["TABLE", "WITH_CORE", "State", "TransitionError", "Trigger", "mermaid", "next_state"]


class Trigger(enum.StrEnum):
    """What moves the node from one state to another."""

    START_REQUESTED = "start requested"  # a /start that needs more than the running core, or a config in the store
    CORE_READY = "core ready"  # a core answers and has its users
    START_FAILED = "start failed"  # no core came up, and no earlier one is left
    CORE_DIED = "core died"
    GAVE_UP = "gave up"  # too many deaths in a window, or a config that the core refuses
    TRIED_AGAIN = "tried again"  # a long pause after it was given up is over
    STOP_REQUESTED = "stop requested"
    NOTHING_TO_RUN = "nothing to run"  # neither the store nor a core that was found asks for one
    LINGER_ENDED = "linger ended"  # nobody took the core over in time, or it may not linger
    CORE_STOPPED = "core stopped"


class TransitionError(RuntimeError):
    """An event has no meaning in the state in which it happened: a fault in the node."""

    def __init__(self, state: State, what: object) -> None:
        super().__init__(f"'{what}' has no meaning in the state '{state}'")
        self.state = state


#: A request finds the node between two states only after an interruption, and then recovers from it.
TABLE: dict[tuple[State, Trigger], State] = {
    (State.RESTORING, Trigger.CORE_READY): State.RUNNING,
    (State.RESTORING, Trigger.NOTHING_TO_RUN): State.IDLE,
    (State.RESTORING, Trigger.START_REQUESTED): State.STARTING,
    (State.RESTORING, Trigger.CORE_DIED): State.RECOVERING,
    (State.RESTORING, Trigger.STOP_REQUESTED): State.STOPPING,
    (State.IDLE, Trigger.START_REQUESTED): State.STARTING,
    (State.IDLE, Trigger.STOP_REQUESTED): State.IDLE,
    (State.STARTING, Trigger.CORE_READY): State.RUNNING,
    (State.STARTING, Trigger.START_FAILED): State.IDLE,
    (State.STARTING, Trigger.CORE_DIED): State.RECOVERING,
    (State.STARTING, Trigger.START_REQUESTED): State.STARTING,
    (State.STARTING, Trigger.STOP_REQUESTED): State.STOPPING,
    (State.RUNNING, Trigger.START_REQUESTED): State.STARTING,
    (State.RUNNING, Trigger.CORE_DIED): State.RECOVERING,
    (State.RUNNING, Trigger.STOP_REQUESTED): State.LINGERING,
    (State.RECOVERING, Trigger.CORE_READY): State.RUNNING,
    (State.RECOVERING, Trigger.CORE_DIED): State.RECOVERING,
    (State.RECOVERING, Trigger.GAVE_UP): State.FAILED,
    (State.RECOVERING, Trigger.START_REQUESTED): State.STARTING,
    (State.RECOVERING, Trigger.STOP_REQUESTED): State.STOPPING,
    (State.FAILED, Trigger.TRIED_AGAIN): State.RECOVERING,
    (State.FAILED, Trigger.START_REQUESTED): State.STARTING,
    (State.FAILED, Trigger.STOP_REQUESTED): State.STOPPING,
    (State.LINGERING, Trigger.START_REQUESTED): State.STARTING,
    (State.LINGERING, Trigger.STOP_REQUESTED): State.LINGERING,
    (State.LINGERING, Trigger.LINGER_ENDED): State.STOPPING,
    (State.LINGERING, Trigger.CORE_DIED): State.IDLE,
    (State.STOPPING, Trigger.CORE_STOPPED): State.IDLE,
    (State.STOPPING, Trigger.START_REQUESTED): State.STARTING,
    (State.STOPPING, Trigger.STOP_REQUESTED): State.STOPPING,
}


def next_state(state: State, trigger: Trigger) -> State:
    """Look up where ``trigger`` leads from ``state``.

    Args:
        state: Where the node is.
        trigger: What moves it.

    Returns:
        Where it is then.

    Raises:
        TransitionError: The table has no answer.
    """
    try:
        return TABLE[state, trigger]
    except KeyError:
        raise TransitionError(state, trigger) from None


def mermaid() -> str:
    """Draw the table as a Mermaid state diagram, as docs/architecture.md shows it."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.RESTORING}"]
    lines += [f"    {state} --> {after}: {trigger}" for (state, trigger), after in TABLE.items()]
    return "\n".join(lines)
