"""``pgnode run``: the node in the foreground."""

from __future__ import annotations

import os
from pathlib import Path

from pgnode.cli.output import say
from pgnode.errors import OperatorError
from pgnode.os_support import streams
from pgnode.os_support.surroundings import reset_signals, what_is_missing
from pgnode.supervisor.processes.inheritance import VARIABLE as INHERITANCE


def run_node(env_file: Path | None = None) -> int:
    """Run the node until it is told to end.

    Args:
        env_file: A file of settings, which wins over the environment; its other names become variables of the node.

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
    from pgnode.settings import load_from, other_variables, unknown_settings  # noqa: PLC0415 - after that
    from pgnode.supervisor.host.logging import begin_logging, told_in_log  # noqa: PLC0415
    from pgnode.supervisor.main import run  # noqa: PLC0415

    env_file = env_file.absolute() if env_file is not None else None
    settings = load_from(env_file)
    if env_file is not None:
        os.environ.update(other_variables(env_file))
    begin_logging(settings.log_format, os.environ)
    for sentence in unknown_settings():
        if not told_in_log("warning", sentence):
            say(f"pgnode: {sentence}", error=True)
    try:
        return run(settings, env_file)
    except OperatorError as error:
        if not told_in_log("error", str(error)):
            raise
        streams.drain()
        return error.exit_code
