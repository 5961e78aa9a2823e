"""``pgnode run``: the node in the foreground."""

from __future__ import annotations

import os
from pathlib import Path

from pgnode.cli.output import say
from pgnode.errors import OperatorError
from pgnode.os_support import streams
from pgnode.os_support.environment import drop_grpc_variables
from pgnode.os_support.surroundings import reset_signals, what_is_missing
from pgnode.supervisor.processes.inheritance import VARIABLE as INHERITANCE

#: A setting of the gRPC library that is the node's own.
_FORKS = "GRPC_ENABLE_FORK_SUPPORT"

#: What surroundings set for all programs, and nobody has to be told of.
_USUAL = frozenset({_FORKS, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"})


def run_node(env_file: Path | None = None) -> int:
    """Run the node until it is told to end.

    Args:
        env_file: A file of settings, which wins over the environment; its other names become variables of the node.

    Returns:
        The exit code.

    Raises:
        OperatorError: It cannot run as it is set up.
    """
    # Before the first word: a reader that hangs or has gone keeps no node from its start.
    streams.make_safe()
    if INHERITANCE not in os.environ:
        # Where this process was a supervisor before, what came meanwhile waits for it.
        reset_signals()
    missing = what_is_missing()
    if missing is not None:
        raise OperatorError(missing)
    from pgnode.settings import Settings, load_from, other_variables, unknown_settings  # noqa: PLC0415 - after that

    env_file = env_file.absolute() if env_file is not None else None
    settings = load_from(env_file)
    if env_file is not None:
        os.environ.update(other_variables(env_file))
    dropped = drop_grpc_variables(os.environ, {name.upper() for name in Settings.model_fields})
    # The library's hooks around fork are of no use here (every process of ours is spawned) and print about it.
    os.environ[_FORKS] = "0"
    from pgnode.supervisor.host.logging import begin_logging, told_in_log  # noqa: PLC0415 - imports that library
    from pgnode.supervisor.main import run  # noqa: PLC0415

    begin_logging(settings.log_format, os.environ)
    no_effect = [f"{name} has no effect: it is for the gRPC library" for name in dropped if name not in _USUAL]
    for sentence in [*unknown_settings(), *no_effect]:
        if not told_in_log("warning", sentence):
            say(f"pgnode: {sentence}", error=True)
    try:
        return run(settings, env_file)
    except OperatorError as error:
        if not told_in_log("error", str(error)):
            raise
        streams.drain()
        return error.exit_code
