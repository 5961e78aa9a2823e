"""The settings of a Gunicorn that runs without a supervisor (``pgnode worker rest``), read again at SIGHUP.

Settings that are not allowed must not end the master, and the API with it: then those before stay in force.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pgnode.settings.handover import (
    ALONE_VARIABLE,
    ENVIRONMENT_VARIABLE,
    FILE_VARIABLE,
    VARIABLE,
    load_handed_over,
    runs_alone,
)

if TYPE_CHECKING:
    from pgnode.settings.model import Settings

#: What reads and checks them, in a process of its own.
MODULE: Final = "pgnode.settings.alone"

#: Seconds that it has.
READ_SECONDS: Final = 30.0


class SettingsAgain:
    """Remembers whether the settings were read before: Gunicorn runs its configuration anew at each reload."""

    def __init__(self) -> None:
        self._is_reload = False

    def __repr__(self) -> str:
        return f"SettingsAgain({'read' if self._is_reload else 'not read yet'})"

    def load(self, tell: Callable[[str], None]) -> Settings:
        """Return the settings: at the start as they were handed over, at a reload as they are now, where no supervisor is there.

        Args:
            tell: Gets a sentence where they cannot be used, and those before stay.

        Returns:
            The settings.

        Raises:
            SettingsError: Those that were handed over cannot be read.
        """
        if self._is_reload and runs_alone():
            why = _read_again()
            if why:
                tell(f"settings not taken, those before stay in force: {why}")
        self._is_reload = True
        return load_handed_over()


def _read_again() -> str:
    """Put the settings as they are now in the place of those that were handed over; return why that is not possible, or ""."""
    number = int(os.environ[VARIABLE])
    environment = int(os.environ[ENVIRONMENT_VARIABLE])
    files = [os.environ[FILE_VARIABLE]] if FILE_VARIABLE in os.environ else []
    try:
        with tempfile.TemporaryFile(dir=_folder()) as made:
            done = subprocess.run(
                [sys.executable, "-m", MODULE, os.environ[ALONE_VARIABLE], str(made.fileno()), *files],
                pass_fds=(made.fileno(), number, environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=READ_SECONDS,
            )
            # Gunicorn takes the exit codes of all children of its own, so what counts is what was written.
            if not os.fstat(made.fileno()).st_size:
                return (done.stdout.strip() or done.stderr.strip() or "they could not be read").splitlines()[-1]
            # Workers that were forked keep theirs.
            os.dup2(made.fileno(), number, inheritable=True)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return ""


def _folder() -> Path:
    """Return where a file without a name may be: in memory, since the key is in it."""
    memory = Path("/dev/shm")  # noqa: S108
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


#: The one of this process.
settings_again = SettingsAgain()
