"""Writing a file whole or not at all: what was there before stays until all of the new content is on the disk."""

from __future__ import annotations

import os
from pathlib import Path

#: What the file that is being written is called beside its target. Left behind by a crash, it is written over the next time.
SUFFIX = ".new"


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file so that readers find the old content or the new one, and nothing in between.

    One writer of a path at a time: two would write the same temporary file.

    Args:
        path: The file. Its folder must exist.
        content: Text (written as UTF-8) or bytes.
        mode: Permissions of the new file, whatever the umask is and the old one had.
        durable: Wait for the disk, so that the new content is there after a crash of the machine. Leave it out for what
            means nothing after one.

    Raises:
        OSError: The file is as it was before.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(path.name + SUFFIX)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with open(descriptor, "wb") as file:
        # A leftover keeps the mode it was made with.
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        if durable:
            os.fsync(descriptor)
    temporary.replace(path)
    if durable:
        sync_folder(path.parent)


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
