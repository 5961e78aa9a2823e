"""What operators may ask of a supervisor, put together."""

from __future__ import annotations

from pathlib import Path

from pgnode.supervisor.control import messages
from pgnode.supervisor.control.answers import Answers
from pgnode.supervisor.control.drain_orders import DrainOrders
from pgnode.supervisor.control.live import LiveAnswers
from pgnode.supervisor.control.server import ControlServer
from pgnode.supervisor.control.session_orders import SessionOrders
from pgnode.supervisor.control.worker_orders import WorkerOrders


def control_server(
    run_dir: Path, answers: Answers, live: LiveAnswers, orders: tuple[WorkerOrders, DrainOrders, SessionOrders]
) -> ControlServer:
    """Make what answers operators; it does not listen yet.

    Args:
        run_dir: Where its socket is.
        answers: Says how the node is.
        live: Says what moves.
        orders: What changes the API workers, drains the node, and shows and ends users' connections.

    Returns:
        The server.
    """
    workers, drain, sessions = orders
    by_question = {
        **answers.by_question,
        messages.LIVE: live.live,
        messages.TRAFFIC: live.traffic,
        messages.WORKERS: workers.order,
        messages.DRAIN: drain.order,
        messages.SESSIONS: sessions.order,
    }
    return ControlServer(
        run_dir / messages.SOCKET_NAME, by_question, slow=(messages.WORKERS, messages.DRAIN, messages.SESSIONS)
    )
