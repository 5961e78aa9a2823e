"""``pgnode run``: the node in the foreground."""

from __future__ import annotations

import os

from pgnode.cli.output import say
from pgnode.errors import OperatorError
from pgnode.os_support.surroundings import reset_signals, what_is_missing
from pgnode.supervisor.processes.inheritance import VARIABLE as INHERITANCE


def run_node() -> int:
    """Run the node until it is told to end.

    Returns:
        The exit code.

    Raises:
        OperatorError: It cannot run as it is set up.
    """
    # The gRPC library's hooks around fork are of no use here (every process of ours is spawned) and print about it.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    if INHERITANCE not in os.environ:
        # Where this process was a supervisor before, what came meanwhile waits for it.
        reset_signals()
    missing = what_is_missing()
    if missing is not None:
        raise OperatorError(missing)
    from pgnode.settings import load, unknown_settings  # noqa: PLC0415 - after that
    from pgnode.supervisor.main import run  # noqa: PLC0415

    settings = load()
    for sentence in unknown_settings():
        say(f"pgnode: {sentence}", error=True)
    return run(settings)
