"""The last step of a restore: files of a backup take their places in the state folder, all of them or none.

They stand ready in a folder of their own, ``restore.ready``: that name is the decision, given at once and for good. From then on
whoever holds the state folder moves what is there aside and the new files into place, file by file, and may be killed at any
moment: the next one goes on where it was. What was there before is in ``before-restore`` at the end.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from pgnode.errors import SettingsError
from pgnode.os_support.fault_points import fault_point
from pgnode.os_support.files import sync_folder

STORE: Final = "state.db"

#: Files that a backup may hold, by their paths in the state folder, and in the order in which they are moved.
MEMBERS: Final = ("api_key", "api_key.previous", "tls/key.pem", "tls/cert.pem", STORE)

#: What SQLite keeps beside a store.
_BESIDE: Final = (f"{STORE}-wal", f"{STORE}-shm")

#: Where a restore gathers files; where they stand ready; and where those are kept that were there before.
GATHERING: Final = "restore.new"
READY: Final = "restore.ready"
BEFORE: Final = "before-restore"


def make_ready(state_dir: Path) -> None:
    """Decide that what was gathered is restored.

    Args:
        state_dir: The state folder, held by this process.

    Raises:
        OSError: It is not.
    """
    gathered = state_dir / GATHERING
    for path in (*gathered.rglob("*"), gathered):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fault_point("restore.gathered")
    gathered.rename(state_dir / READY)
    sync_folder(state_dir)
    fault_point("restore.ready")


def finish_restore(state_dir: Path) -> bool:
    """Put the files that stand ready into their places, and clear away what an earlier restore did not get ready.

    Args:
        state_dir: The state folder, held by this process.

    Returns:
        Whether there were any.

    Raises:
        SettingsError: It cannot be done; the next attempt goes on.
    """
    ready = state_dir / READY
    try:
        if (state_dir / GATHERING).is_dir():
            shutil.rmtree(state_dir / GATHERING)
        if not ready.is_dir():
            return False
        for member in MEMBERS:
            if (ready / member).exists():
                fault_point("restore.move")
                _move(state_dir, member)
        fault_point("restore.moved")
        _keep_before(state_dir)
        shutil.rmtree(ready)
        sync_folder(state_dir)
    except OSError as error:
        raise SettingsError(
            f"a restore cannot be finished: {error.strerror} ({error.filename or state_dir}); put that right, and start the "
            "node, or restore again"
        ) from None
    return True


def _move(state_dir: Path, member: str) -> None:
    """Move what is there aside, and what stands ready into its place. Raises OSError."""
    ready = state_dir / READY
    # The store last: what stands beside it belongs to it.
    for name in (*(_BESIDE if member == STORE else ()), member):
        current, kept = state_dir / name, ready / BEFORE / name
        if current.exists():
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            current.replace(kept)
    fault_point("restore.aside")
    place = state_dir / member
    place.parent.mkdir(mode=0o700, exist_ok=True)
    (ready / member).replace(place)
    sync_folder(place.parent)


def _keep_before(state_dir: Path) -> None:
    """Give what was there before its final name, in place of what an earlier restore left there."""
    kept = state_dir / READY / BEFORE
    if kept.is_dir():
        shutil.rmtree(state_dir / BEFORE, ignore_errors=True)
        kept.rename(state_dir / BEFORE)
