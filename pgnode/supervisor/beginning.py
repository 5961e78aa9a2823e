"""The very beginning of a supervisor: what it has in common with its API workers is imported, and they are forked from that.

So that memory is there once (:mod:`pgnode.os_support.prepared`). Then the supervisor goes on with what is its own alone.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Final

from pgnode.errors import OperatorError
from pgnode.os_support import prepared, streams
from pgnode.settings.handover import take_checked

if TYPE_CHECKING:
    from pgnode.settings import Settings

#: What at least two of the three have: the supervisor, Gunicorn's master, gRPC workers. None of it begins a thread.
COMMON: Final = (
    "uvloop",
    "psutil",
    "pgnode.os_support.malloc",
    "pgnode.worker.node_client",
    "pgnode.worker.certificate",
)


def main() -> int:
    """Run the node with what was checked; in a process that was forked, what the supervisor wants.

    Returns:
        The exit code.
    """
    streams.make_safe()
    try:
        checked = take_checked(os.environ)
    except OperatorError as error:
        streams.say(f"pgnode: {error}")
        return error.exit_code
    for name in COMMON:
        importlib.import_module(name)
    program = prepared.prepare(wanted(checked.settings), os.environ)
    if program is not None:
        return program.run()
    from pgnode.supervisor.checked_start import main as supervise  # noqa: PLC0415 - what it imports is for the supervisor alone

    return supervise(checked)


def wanted(settings: Settings) -> int:
    """Return how many processes a start needs that have something in common: Gunicorn's master, and gRPC workers."""
    return bool(settings.gunicorn_ports) + settings.grpc_worker_count
