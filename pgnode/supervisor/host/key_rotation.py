"""A new API key for a node: written so that its workers, which follow the files, know a valid key at any time."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pgnode.errors import OperatorError
from pgnode.os_support.files import sync_folder, write_atomically
from pgnode.settings import read_api_key
from pgnode.settings.previous_key import PreviousKey, previous_key_file

if TYPE_CHECKING:
    from pgnode.settings import Settings


def rotate_key(
    settings: Settings, overlap: datetime.timedelta, now: datetime.datetime
) -> tuple[str, PreviousKey | None]:
    """Make a new key.

    Args:
        settings: Where the key is.
        overlap: For how long the key that there is stays valid; nothing, and it ends at once.
        now: The time.

    Returns:
        The new key, and the one before it where that is valid for some time.

    Raises:
        OperatorError: It cannot be made; the key that there is goes on.
    """
    path = settings.key_file
    with _alone(path):
        old = read_api_key(settings)
        new = str(uuid.uuid4())
        previous = PreviousKey(old, now + overlap) if overlap else None
        # The previous one first: whatever happens in between, a key that callers have is valid.
        if previous is not None:
            _write(previous_key_file(settings), previous.encode(), like=path)
        else:
            _remove(previous_key_file(settings))
        _write(path, f"{new}\n", like=path)
    return new, previous


def forget_previous_key(settings: Settings) -> bool:
    """Have the previous key end now.

    Args:
        settings: Where it is.

    Returns:
        Whether there was one.

    Raises:
        OperatorError: It goes on; the text says why.
    """
    with _alone(settings.key_file):
        return _remove(previous_key_file(settings))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep others from changing the key meanwhile. Raises OperatorError."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OperatorError(
            f"{path.parent} cannot be opened: {error.strerror}; be the user of the node, or root"
        ) from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise OperatorError(f"somebody else is changing {path}: try again") from None
    finally:
        os.close(folder)


def _write(path: Path, text: str, *, like: Path) -> None:
    """Write a file with the rights of another: root may do it for the node's user. Raises OperatorError."""
    try:
        found = like.stat()
        owner = (found.st_uid, found.st_gid) if os.geteuid() == 0 else None
        write_atomically(path, text, mode=stat.S_IMODE(found.st_mode), owner=owner)
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be written: {error.strerror}; the key that there was is valid as before"
        ) from None


def _remove(path: Path) -> bool:
    """Remove a file for good. Raises OperatorError."""
    try:
        path.unlink()
        sync_folder(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OperatorError(f"{path} cannot be removed: {error.strerror}") from None
    return True
