"""Files that are appended to and never grow without end: a full one becomes ``NAME.1``, and so on, and the oldest goes.

Only plain files are written, never behind a link: a FIFO without a reader would hold up whoever writes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

#: Full files that are kept beside the one that is written.
KEPT: Final = 3

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_plain(path: Path, owner: tuple[int, int] | None = None) -> int:
    """Open a file to append to it; it is made where it is missing, for this user alone.

    Args:
        path: The file.
        owner: User and group that it is given; None: as it is.

    Returns:
        A descriptor.

    Raises:
        OSError: That cannot be; it may be a link, a device, a FIFO or a folder.
    """
    descriptor = os.open(path, _FLAGS, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file")
    if owner is not None and os.geteuid() == 0:
        # Root writes for another user, who has to be able to go on with it.
        os.fchown(descriptor, *owner)
    return descriptor


def append(path: Path, data: bytes, max_bytes: int = 0, *, owner: tuple[int, int] | None = None) -> None:
    """Append to a file; one that would grow beyond its bound is set aside before, and a new one begun.

    Args:
        path: The file.
        data: What is appended, whole.
        max_bytes: The bound; 0: none.
        owner: User and group of the file; None: as it is.

    Raises:
        OSError: That cannot be.
    """
    descriptor = open_plain(path, owner)
    try:
        size = os.fstat(descriptor).st_size
        if max_bytes and size and size + len(data) > max_bytes:
            shift(path)
            os.close(descriptor)
            descriptor = -1
            descriptor = open_plain(path, owner)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def shift(path: Path) -> None:
    """Set a full file aside, and drop the oldest of those that were.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be renamed.
    """
    for number in range(KEPT, 1, -1):
        with contextlib.suppress(FileNotFoundError):
            _aside(path, number - 1).rename(_aside(path, number))
    path.rename(_aside(path, 1))


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
