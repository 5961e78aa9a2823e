"""The private folder of a core (``run_dir``): which files it holds, how it is made ready, how it is cleared.

* ``core.sock`` is the core's API; the config says so.
* ``core.log.fifo`` takes the core's output. The core holds it open for reading and writing, so nobody has to read.
* ``core.json`` is the record (:mod:`pgnode.xray.process.record`).
* ``core.files.json`` says which content of files that the config names the core has read.
* ``core.config.json`` holds the config until the core has read it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from pgnode.xray.process.record import RECORD_NAME, CoreRecord, read_record

SOCKET_NAME: Final = "core.sock"
FIFO_NAME: Final = "core.log.fifo"
CONFIG_NAME: Final = "core.config.json"
FILES_NAME: Final = "core.files.json"
#: The core locks its socket by a file beside it, and leaves that behind.
_LEFTOVERS: Final = (RECORD_NAME, SOCKET_NAME, f"{SOCKET_NAME}.lock", FIFO_NAME, CONFIG_NAME, FILES_NAME)


def prepare(run_dir: Path, config_json: str) -> int:
    """Make the folder, with a fresh FIFO and the config in it.

    Args:
        run_dir: The folder.
        config_json: The config, which is for this user's eyes alone.

    Returns:
        A non-blocking descriptor of the FIFO's reading end.

    Raises:
        OSError: The folder cannot be written.
    """
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _LEFTOVERS:
        (run_dir / name).unlink(missing_ok=True)
    descriptor = os.open(run_dir / CONFIG_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(config_json)
    os.mkfifo(run_dir / FIFO_NAME, 0o600)
    return open_fifo(run_dir)


def open_fifo(run_dir: Path) -> int:
    """Open the FIFO for reading, without blocking. Raises OSError when there is none."""
    return os.open(run_dir / FIFO_NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def clear(run_dir: Path, record: CoreRecord | None = None) -> None:
    """Remove what a core leaves in its folder; with ``record``, only if the folder still is that core's."""
    if record is not None and read_record(run_dir) not in (record, None):
        return
    for name in _LEFTOVERS:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (run_dir / name).unlink()


def writes_to_fifo(pid: int, run_dir: Path) -> bool:
    """Whether the standard output of this process is the folder's FIFO: the mark of a core, as nobody else has it there."""
    try:
        return Path(f"/proc/{pid}/fd/1").samefile(run_dir / FIFO_NAME)
    except OSError:
        return False
