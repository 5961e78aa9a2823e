"""What is wrong with the store, in words for the operator: of SQLite's errors and of the system's."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pgnode.errors import StoreUnusableError

#: SQLite's result codes (the low byte) and what they mean to operators.
_CAUSES = {
    sqlite3.SQLITE_FULL: "no room on the disk",
    sqlite3.SQLITE_READONLY: "the file, or its folder, cannot be written by this user",
    sqlite3.SQLITE_CANTOPEN: "the file, or one beside it, cannot be opened",
    sqlite3.SQLITE_BUSY: "another process is writing to it",
    sqlite3.SQLITE_LOCKED: "another process is writing to it",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_NOTADB: "the file is damaged",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
}

#: What the system says in place of SQLite, as SQLite would say it.
_OF_ERRNO = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_READONLY,
    errno.EPERM: sqlite3.SQLITE_READONLY,
    errno.EIO: sqlite3.SQLITE_IOERR,
    errno.EMFILE: sqlite3.SQLITE_CANTOPEN,
    errno.ENFILE: sqlite3.SQLITE_CANTOPEN,
}

#: What an operator of a running node can do.
WHEN_RUNNING = (
    "make room on the disk of STATE_DIR, the node then goes on by itself",
    "let this user write STATE_DIR, the node then goes on by itself",
    "end that process, the node then goes on by itself",
    "see the kernel's log and the disk of STATE_DIR, a quota may be used up as well",
    "stop the node, then restore STATE_DIR from a backup",
)

#: What an operator can do before a start.
_LET_WRITE = "let this user read and write STATE_DIR, or choose another folder"
_LOOK_AT_DISK = "see the kernel's log and the disk of STATE_DIR, or choose another folder"
_RESTORE = (
    "restore it from a backup, or move it away with its -wal and -shm files: the next start of the panel then brings the "
    "users back, traffic that was not reported is lost"
)
_BEFORE_START = {
    sqlite3.SQLITE_FULL: "make room, then start the node again",
    sqlite3.SQLITE_READONLY: _LET_WRITE,
    sqlite3.SQLITE_CANTOPEN: _LET_WRITE,
    sqlite3.SQLITE_BUSY: "end that process, then start the node again",
    sqlite3.SQLITE_LOCKED: "end that process, then start the node again",
    sqlite3.SQLITE_IOERR: _LOOK_AT_DISK,
}


def damaged(found: str) -> sqlite3.DatabaseError:
    """Return the error for a file in which SQLite's check found damage; ``found`` is its report, of one or more lines."""
    lines = [line for line in found.splitlines() if not line.startswith("***")]
    error = sqlite3.DatabaseError(", ".join(lines) or found)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _code_of(error: Exception) -> int | None:
    """Return SQLite's result code, its low byte; None where there is none."""
    if isinstance(error, OSError):
        return _OF_ERRNO.get(error.errno or 0)
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:
        # The file beside the store could not grow: on a full disk that is what opening it meets first.
        return sqlite3.SQLITE_FULL
    return code & 0xFF if code is not None else None


def cause_of(error: Exception) -> str:
    """Say in a few words what is wrong."""
    code = _code_of(error)
    cause = _CAUSES.get(code) if code is not None else None
    said = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return f"{cause} ({said})" if cause is not None else said


def advice_for(error: Exception) -> str:
    """Say in a few words what an operator can do for a node that runs."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "let the node open more files (ulimit -Hn, LimitNOFILE), it then goes on by itself"
    if isinstance(error, OSError) and error.errno == errno.EDQUOT:
        return "make room in this user's quota on the disk of STATE_DIR, the node then goes on by itself"
    match _code_of(error):
        case sqlite3.SQLITE_FULL:
            return WHEN_RUNNING[0]
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
            return WHEN_RUNNING[1]
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return WHEN_RUNNING[2]
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return WHEN_RUNNING[4]
    return WHEN_RUNNING[3]


@contextlib.contextmanager
def told_to_operator(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say into a sentence for the operator."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError) as error:
        code = _code_of(error)
        verb, other = ("opened", _LET_WRITE) if isinstance(error, OSError) else ("used", _RESTORE)
        advice = other if code is None else _BEFORE_START.get(code, other)
        raise StoreUnusableError(f"{path} cannot be {verb}: {cause_of(error)}; {advice}") from None
