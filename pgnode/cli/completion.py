"""``pgnode completion``: what a shell needs to complete commands, options and names of nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from pgnode.cli.output import say
from pgnode.errors import OperatorError

#: Shells that can be served.
SHELLS: Final = ("bash", "zsh", "fish")

#: The command, and the variable with which a shell asks it what may come next.
PROGRAM: Final = "pgnode"
VARIABLE: Final = "_PGNODE_COMPLETE"


def print_completion(shell: str, command: click.Command, *, json_wanted: bool = False) -> int:
    """Print the script that a shell has to read.

    Args:
        shell: One of :data:`SHELLS`.
        command: The command that is completed.
        json_wanted: Print JSON.

    Returns:
        The exit code.

    Raises:
        OperatorError: The shell is not known.
    """
    found = get_completion_class(shell) if shell in SHELLS else None
    if found is None:
        raise OperatorError(f"{shell} is not known: known are {', '.join(SHELLS)}")
    # Without the look at the shell that is installed here: the script may be for another machine.
    script = ShellComplete.source(found(command, {}, PROGRAM, VARIABLE))
    say(json.dumps({"shell": shell, "script": script}) if json_wanted else script)
    return 0


def node_names(beginning: str, folder: Path = Path("/etc/pgnode")) -> list[CompletionItem]:
    """Return the names of this machine's nodes.

    Args:
        beginning: How they begin.
        folder: Has their settings.

    Returns:
        The names; none where the folder cannot be read.
    """
    try:
        names = sorted(path.stem for path in folder.glob("*.env"))
    except OSError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(beginning)]
