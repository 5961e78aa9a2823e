"""What operators may ask of a supervisor, put together."""

from __future__ import annotations

from pathlib import Path

from pgnode.supervisor.control import messages
from pgnode.supervisor.control.answers import Answers
from pgnode.supervisor.control.drain_orders import DrainOrders
from pgnode.supervisor.control.live import LiveAnswers
from pgnode.supervisor.control.server import ControlServer
from pgnode.supervisor.control.worker_orders import WorkerOrders


def control_server(
    run_dir: Path, answers: Answers, live: LiveAnswers, orders: WorkerOrders, drain: DrainOrders
) -> ControlServer:
    """Make what answers operators; it does not listen yet.

    Args:
        run_dir: Where its socket is.
        answers: Says how the node is.
        live: Says what moves.
        orders: Changes the API workers.
        drain: Drains the node.

    Returns:
        The server.
    """
    by_question = {
        **answers.by_question,
        messages.LIVE: live.live,
        messages.TRAFFIC: live.traffic,
        messages.WORKERS: orders.order,
        messages.DRAIN: drain.order,
    }
    return ControlServer(run_dir / messages.SOCKET_NAME, by_question, slow=(messages.WORKERS, messages.DRAIN))
