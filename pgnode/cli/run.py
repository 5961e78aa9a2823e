"""``pgnode run``: the node in the foreground.

What is imported here is gone when the node runs: see :mod:`pgnode.supervisor.checked_start`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pgnode.errors import ArgumentError, OperatorError
from pgnode.os_support import streams
from pgnode.os_support.environment import drop_grpc_variables
from pgnode.os_support.lean_start import CHECKED_VARIABLE
from pgnode.os_support.surroundings import MEMORY, find_temporary_folder, reset_signals, what_is_missing
from pgnode.settings.handover import Checked, hand_on
from pgnode.supervisor.processes.inheritance import VARIABLE as INHERITANCE

if TYPE_CHECKING:
    from pgnode.cli.target import Places

#: A setting of the gRPC library that is the node's own.
_FORKS = "GRPC_ENABLE_FORK_SUPPORT"

#: What surroundings set for all programs, and nobody has to be told of.
_USUAL = frozenset({_FORKS, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"})


def run_named(env_file: Path | None, node: str | None, state_dir: Path | None, places: Places | None = None) -> int:
    """Run the node that is named.

    Args:
        env_file: A file of settings; None for none.
        node: A service that is one of several: its settings are in /etc/pgnode, its folder is below /var/lib/pgnode.
        state_dir: The state folder; None for that of the settings.
        places: Where services keep what is theirs; None for where they do.

    Returns:
        The exit code.

    Raises:
        OperatorError: It cannot run as it is set up.
    """
    if node is not None or state_dir is not None:
        streams.make_safe()
        from pgnode.cli import target  # noqa: PLC0415 - a node that is not named needs none of it
        from pgnode.settings import names_in_env_file  # noqa: PLC0415

        places = places if places is not None else target.Places()
        if node is not None:
            if env_file is not None:
                raise ArgumentError("--node names a file of settings, and so does --env-file: give one of them")
            env_file = target.service_file(node, places)
        says = env_file is not None and "STATE_DIR" in names_in_env_file(env_file)
        if says and state_dir is not None:
            raise ArgumentError(f"--state-dir is given, and {env_file} sets STATE_DIR: take it out of one of them")
        if state_dir is None and not says:
            state_dir = places.state_dir / str(node)
        if state_dir is not None:
            # Of the environment, which a restart in place and a look at another version keep.
            os.environ["STATE_DIR"] = str(state_dir.absolute())
    return run_node(env_file)


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
    missing = find_temporary_folder(os.environ, (settings.state_dir, settings.state_dir.parent, MEMORY))
    if missing is not None:
        raise OperatorError(missing)
    dropped = drop_grpc_variables(os.environ, {name.upper() for name in Settings.model_fields})
    # The library's hooks around fork are of no use here (every process of ours is spawned) and print about it.
    os.environ[_FORKS] = "0"
    no_effect = [f"{name} has no effect: it is for the gRPC library" for name in dropped if name not in _USUAL]
    checked = Checked(settings, env_file, [*unknown_settings(env_file), *no_effect])
    _begin_anew(checked)
    from pgnode.supervisor.checked_start import run_checked  # noqa: PLC0415 - the next program imports it, if there is one

    return run_checked(checked)


def _begin_anew(checked: Checked) -> None:
    """Become the program that runs the supervisor; return where the system does not allow that."""
    try:
        descriptor = hand_on(checked)
    except OSError:
        return
    try:
        variables = {**os.environ, CHECKED_VARIABLE: str(descriptor)}
        os.execve(sys.executable, sys.orig_argv, variables)  # noqa: S606 - as it was started
    except OSError:
        os.close(descriptor)
