"""Writing a file whole or not at all: what was there before stays until all of the new content is on the disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

#: What the file that is being written is called beside its target. Left behind by a crash, it is written over the next time.
SUFFIX = ".new"

#: What a file is called that was set aside, since nothing can be done with it.
UNUSABLE_SUFFIX = ".unusable"
_ASIDE_MAX = 100


def write_atomically(
    path: Path,
    content: str | bytes,
    *,
    mode: int = 0o600,
    durable: bool = True,
    owner: tuple[int, int] | None = None,
) -> None:
    """Write a file so that readers find the old content or the new one, and nothing in between.

    One writer of a path at a time: two would write the same temporary file.

    Args:
        path: The file. Its folder must exist.
        content: Text (written as UTF-8) or bytes.
        mode: Permissions of the new file, whatever the umask is and the old one had.
        durable: Wait for the disk, so that the new content is there after a crash of the machine. Leave it out for what
            means nothing after one.
        owner: User and group of the new file; None for this process's.

    Raises:
        OSError: The file is as it was before.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(path.name + SUFFIX)
    # Non-blocking, for a FIFO in its place: that is refused, not waited for.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(temporary, flags, mode)
    try:
        with open(descriptor, "wb") as file:
            # A leftover keeps the mode it was made with.
            os.fchmod(descriptor, mode)
            if owner is not None:
                os.fchown(descriptor, *owner)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        # On a full disk it would keep an inode, and some room, from others.
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def overwrite(path: Path, data: bytes) -> None:
    """Overwrite a small file where it is, by one call: for a disk that has no room for a second file.

    What a reader sees is the old content or the new one, for as long as the machine does not crash. Trailing spaces fill it up
    to the old length, and it does not become longer.

    Args:
        path: The file.
        data: At most as many bytes as it has.

    Raises:
        OSError: It is not there, or cannot be written, or is too short.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        size = os.fstat(descriptor).st_size
        if len(data) > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if os.pwrite(descriptor, data.ljust(size), 0) != size:
            raise OSError(errno.EIO, "not written to its end", str(path))
    finally:
        os.close(descriptor)


def kind_of(path: Path) -> str:
    """Say what is at a path, links followed.

    Args:
        path: The path.

    Returns:
        "a folder", "a file", "a FIFO" …; "" where nothing is.

    Raises:
        OSError: That cannot be found out.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link that leads nowhere" if path.is_symlink() else ""
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads in a circle"
        raise
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFREG: "a file",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Read a file that may be anything by now: a folder, a FIFO that nobody writes to, something huge.

    Args:
        path: The file; links are followed.
        max_bytes: The most that it may hold.

    Returns:
        Its content.

    Raises:
        OSError: It cannot be read, is no regular file, or too large; ``strerror`` says which.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"has more than {max_bytes} bytes", str(path))
    return content


def read_json(path: Path, max_bytes: int) -> Any:
    """Read a JSON file, of which nothing is taken for granted.

    Args:
        path: The file.
        max_bytes: The most that it may hold.

    Returns:
        What the JSON says.

    Raises:
        OSError: It cannot be read, is no regular file, or too large.
        ValueError: It is no JSON, no UTF-8, or nested too deeply.
    """
    try:
        return json.loads(read_regular(path, max_bytes).decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def set_aside(path: Path) -> Path:
    """Rename what cannot be used to ``NAME.unusable``, or with a number behind it where that name is taken.

    Args:
        path: The file, or whatever is in its place.

    Returns:
        Where it is now.

    Raises:
        OSError: That was not possible.
    """
    target = path.with_name(path.name + UNUSABLE_SUFFIX)
    for number in range(2, _ASIDE_MAX):
        if not os.path.lexists(target):
            break
        target = path.with_name(f"{path.name}{UNUSABLE_SUFFIX}.{number}")
    path.rename(target)
    return target


def sync_folder(folder: Path) -> None:
    """Wait until the names of a folder are on the disk: a file that was renamed into it, say.

    Args:
        folder: The folder.

    Raises:
        OSError: The disk did not take them.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
