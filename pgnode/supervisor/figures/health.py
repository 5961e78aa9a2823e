"""Whether the node is ready for callers, and why not. Pure."""

from __future__ import annotations

from pgnode.bus.snapshots import NodeStatus
from pgnode.bus.state import State


def not_ready(status: NodeStatus, *, wanted: bool, store_error: str, bus_answers: bool = True) -> list[str]:
    """Return what keeps the node from serving its callers and users.

    A node that nobody has started is ready: it waits for its panel.

    Args:
        status: The node's state.
        wanted: A core has to run.
        store_error: Why the store does not take changes; "" where it does.
        bus_answers: Redis answers.

    Returns:
        Reasons; none where it is ready.
    """
    because = [status.draining] if status.draining else []
    if not bus_answers:
        because.append("the bus (Redis) does not answer")
    if status.state is State.RESTORING and not status.core_ready:
        because.append("the supervisor has just begun and does not know yet whether a core runs")
    elif wanted and not status.core_ready:
        why = f": {status.core_api_error}" if status.core_api_error else ""
        because.append(f"the core does not serve, state {status.state}{why}")
    if status.unknown:
        because.append(f"it is not known what has to run: {status.unknown}")
    if store_error:
        because.append(f"the store does not take changes: {store_error}")
    return because
