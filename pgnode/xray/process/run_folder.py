"""The private folder of a core (``run_dir``): which files it holds, how it is made ready, how it is cleared.

* ``core.sock`` is the core's API; the config says so.
* ``reach.sock`` shows and ends the core's connections (:mod:`pgnode.xray.process.reach_inside`).
* ``core.log.fifo`` takes the core's output. The core holds it open for reading and writing, so nobody has to read.
* ``core.json`` is the record, ``core.copy.json`` its copy (:mod:`pgnode.xray.process.record`).
* ``core.spec.json`` says what the core runs (:mod:`pgnode.supervisor.lifecycle.kept_spec`).
* ``core.change.json`` says between which configs the core may be, once it was changed while it ran.
* ``core.files.json`` says which content of files that the config names the core has read.

Where the folder takes no files (a full disk, one that became read-only, no inode left) a core is started in a fallback: a
folder elsewhere whose name every later supervisor of the same state folder knows (:func:`fallbacks`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pgnode.os_support.files import set_aside
from pgnode.xray.process.reach_messages import REACH_NAME
from pgnode.xray.process.record import COPY_NAME, RECORD_NAME, CoreRecord, read_records

SOCKET_NAME: Final = "core.sock"
FIFO_NAME: Final = "core.log.fifo"
FILES_NAME: Final = "core.files.json"
SPEC_NAME: Final = "core.spec.json"
CHANGE_NAME: Final = "core.change.json"
#: The core locks its socket by a file beside it, and leaves that behind; earlier versions wrote the config to a file.
_LEFTOVERS: Final = (
    RECORD_NAME,
    COPY_NAME,
    SOCKET_NAME,
    f"{SOCKET_NAME}.lock",
    REACH_NAME,
    FIFO_NAME,
    FILES_NAME,
    SPEC_NAME,
    CHANGE_NAME,
    "core.config.json",
)

#: Where fallbacks are made, best first. Named without looking at the environment: the next supervisor may have another one.
FALLBACK_PARENTS: Final = (
    Path("/dev/shm"),  # noqa: S108 - the folder in it is private, and refused where it is not
    Path(f"/run/user/{os.geteuid()}"),
    Path("/tmp"),  # noqa: S108
    Path("/var/tmp"),  # noqa: S108
)
_FALLBACK_PREFIX: Final = "pgnode-core-"


def prepare(run_dir: Path) -> int:
    """Make the folder, with a fresh FIFO in it. A folder in place of a file is set aside.

    Args:
        run_dir: The folder.

    Returns:
        A non-blocking descriptor of the FIFO's reading end.

    Raises:
        OSError: The folder cannot be written.
    """
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _LEFTOVERS:
        try:
            (run_dir / name).unlink(missing_ok=True)
        except IsADirectoryError:
            set_aside(run_dir / name)
    os.mkfifo(run_dir / FIFO_NAME, 0o600)
    return open_fifo(run_dir)


def open_fifo(run_dir: Path, writer: int | None = None) -> int:
    """Open the FIFO for reading, without blocking.

    Args:
        run_dir: The folder.
        writer: Pid of a core that writes to it: through that the FIFO is found also where its name was removed.

    Returns:
        The descriptor.

    Raises:
        OSError: There is none.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(run_dir / FIFO_NAME, flags)
    except FileNotFoundError:
        if writer is None:
            raise
        return os.open(f"/proc/{writer}/fd/1", flags)


def clear(run_dir: Path, record: CoreRecord | None = None) -> None:
    """Remove what a core leaves in its folder; with ``record``, only if the folder still is that core's.

    What cannot be removed now (the disk became read-only) stays: the next core's :func:`prepare` has to get by with it.
    """
    if record is not None and not all(found.is_of(record) for found in read_records(run_dir)[:1]):
        return
    for name in _LEFTOVERS:
        with contextlib.suppress(OSError):
            (run_dir / name).unlink()
    if run_dir.name.startswith(_FALLBACK_PREFIX):
        with contextlib.suppress(OSError):
            run_dir.rmdir()


def writes_to_fifo(pid: int, run_dir: Path) -> bool:
    """Whether the standard output of this process is the folder's FIFO: the mark of a core, as nobody else has it there.

    A core whose FIFO lost its name has it as well: the kernel remembers the name, and on which file system it was.
    """
    output, fifo = Path(f"/proc/{pid}/fd/1"), run_dir / FIFO_NAME
    try:
        found = output.stat()
        if not stat.S_ISFIFO(found.st_mode):
            return False
        with contextlib.suppress(FileNotFoundError):
            if fifo.samefile(output):
                return True
        removed = str(output.readlink()) == f"{run_dir.resolve() / FIFO_NAME} (deleted)"
        return removed and found.st_dev == run_dir.stat().st_dev
    except OSError:
        return False


def is_core(pid: int, run_dir: Path, parents: Sequence[Path] = FALLBACK_PARENTS) -> bool:
    """Whether a process is a core of this node, be its folder ``run_dir`` or a fallback."""
    return any(writes_to_fifo(pid, folder) for folder in (run_dir, *fallbacks(run_dir, parents)))


# --- fallbacks ----------------------------------------------------------------------------------------------------------


def fallbacks(run_dir: Path, parents: Iterable[Path] = FALLBACK_PARENTS) -> Sequence[Path]:
    """Name the folders that may stand in for ``run_dir``, best first; whether they are there is another question.

    Args:
        run_dir: The folder in STATE_DIR.
        parents: Where fallbacks are made.

    Returns:
        Paths; none where ``run_dir`` is not there.
    """
    try:
        found = run_dir.stat()
    except OSError:
        return ()
    # By device and inode: two nodes with the same path in two containers may share /dev/shm.
    name = f"{_FALLBACK_PREFIX}{os.geteuid()}-{found.st_dev:x}-{found.st_ino:x}"
    return [parent / name for parent in parents]


def make_fallback(run_dir: Path, parents: Iterable[Path] = FALLBACK_PARENTS) -> Path:
    """Make the folder that stands in for ``run_dir``.

    Args:
        run_dir: The folder in STATE_DIR.
        parents: Where to try, in this order.

    Returns:
        A folder of this user's, and for nobody else.

    Raises:
        OSError: None can be made.
    """
    failed: OSError = FileNotFoundError(f"{run_dir} is not there")
    for folder in fallbacks(run_dir, parents):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if is_private(folder):
                return folder
            failed = PermissionError(f"{folder} belongs to somebody else, or others may use it")
        except OSError as error:
            failed = error
    raise failed


@contextlib.contextmanager
def place_for_socket(path: Path, parents: Sequence[Path] = FALLBACK_PARENTS) -> Iterator[Path]:
    """Give a place where a unix socket can be made within the context: the usual one, or one in a fallback.

    Args:
        path: The usual place, in the folder in STATE_DIR.
        parents: Where fallbacks are made.

    Yields:
        The place.

    Raises:
        OSError: There is none.
    """
    fallback: Path | None = None
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            path.unlink(missing_ok=True)
            probe.bind(str(path))
        path.unlink()
    except IsADirectoryError:
        # Whoever makes the socket sets that aside.
        pass
    except OSError:
        fallback = make_fallback(path.parent, parents)
    try:
        yield path if fallback is None else fallback / path.name
    finally:
        # Where a core lives there it stays.
        with contextlib.suppress(OSError):
            if fallback is not None:
                fallback.rmdir()


def is_private(folder: Path) -> bool:
    """Whether this is a folder, no link to one, of this user's and for nobody else."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
