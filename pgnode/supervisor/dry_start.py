"""Try whether this version can start, without starting anything: ``python -m pgnode.supervisor.dry_start STATE_DIR [ENV_FILE]``.

Run by a supervisor before it becomes the version that is installed now. Everything is imported, the settings are read and
checked, the parts are put together, and the store is looked at. Nothing is changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pgnode import dependencies
from pgnode.errors import OperatorError, SettingsError
from pgnode.settings import load_from
from pgnode.settings.difference import NO_DIFFERENCE, Difference, difference
from pgnode.settings.handover import VARIABLE, Handover, load_handed_over, take_environment
from pgnode.store.reader import check_readable
from pgnode.supervisor.composition import compose


def check(state_dir: Path, env_file: Path | None = None) -> Difference:
    """Check all that can be known before the start.

    Args:
        state_dir: The folder of the node that runs.
        env_file: The file of settings that it was started with.

    Returns:
        What is different in the settings, where the node that runs handed its own over.

    Raises:
        OperatorError: This version cannot go on with it; the text says why.
    """
    dependencies.check()
    settings = load_from(env_file)
    if settings.state_dir != state_dir:
        raise SettingsError(
            f"STATE_DIR={settings.state_dir} is not the folder of the node that runs ({state_dir}): a restart in place cannot "
            "change it; stop the node, and start it"
        )
    check_readable(settings.store_path)
    compose(settings, Handover(-1))
    return difference(dict(load_handed_over()), dict(settings)) if VARIABLE in os.environ else NO_DIFFERENCE


def main(arguments: Sequence[str]) -> int:
    """Run the check.

    Args:
        arguments: The folder of the node that runs, and the file of settings that it was started with, if there is one.

    Returns:
        The exit code.
    """
    try:
        take_environment(os.environ)
        found = check(*map(Path, arguments))
    except OperatorError as error:
        sys.stdout.write(f"{' '.join(str(error).split())}\n")
        return error.exit_code
    sys.stdout.write(f"{found.encode()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
