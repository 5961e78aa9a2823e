"""Errors of SQLite and of the system are told as what they mean, and what to do."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from pgnode.errors import StoreUnusableError
from pgnode.store.sqlite_errors import advice_for, cause_of, damaged, told_to_operator


def of_code(code: int) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("odd")
    error.sqlite_errorcode = code
    return error


def of_number(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "cause", "running", "start"),
    [
        (of_code(sqlite3.SQLITE_FULL), "no room on the disk", "make room", "make room, then start"),
        (
            of_code(sqlite3.SQLITE_READONLY_DIRECTORY),
            "by this user",
            "let this user write",
            "let this user read and write",
        ),
        (of_code(sqlite3.SQLITE_CANTOPEN), "cannot be opened", "let this user write", "let this user read and write"),
        (of_code(sqlite3.SQLITE_BUSY), "another process", "end that process", "end that process, then start"),
        (of_code(sqlite3.SQLITE_LOCKED), "another process", "end that process", "end that process, then start"),
        (of_code(sqlite3.SQLITE_CORRUPT), "the file is damaged", "from a backup", "restore it from a backup"),
        (of_code(sqlite3.SQLITE_NOTADB), "the file is damaged", "from a backup", "restore it from a backup"),
        (of_code(sqlite3.SQLITE_IOERR_FSYNC), "reports an error", "kernel's log", "see the kernel's log"),
        (of_code(sqlite3.SQLITE_IOERR_SHMSIZE), "no room on the disk", "make room", "make room, then start"),
        (of_code(sqlite3.SQLITE_MISUSE), "odd", "kernel's log", "restore it from a backup"),
        (ValueError("a row is damaged"), "a row is damaged", "kernel's log", "restore it from a backup"),
        (of_number(errno.ENOSPC), "no room on the disk", "make room", "make room, then start"),
        (of_number(errno.EROFS), "by this user", "let this user write", "let this user read and write"),
        (of_number(errno.EDEADLK), "deadlock", "kernel's log", "let this user read and write"),
        (of_number(errno.EIO), "reports an error", "kernel's log", "see the kernel's log"),
    ],
)
def test_what_is_said(error: Exception, cause: str, running: str, start: str) -> None:
    assert cause in cause_of(error)
    assert running in advice_for(error)
    with pytest.raises(StoreUnusableError, match=start) as caught, told_to_operator(Path("state.db")):
        raise error
    assert str(caught.value).startswith(("state.db cannot be used: ", "state.db cannot be opened: "))


def test_what_the_check_of_a_file_found_is_one_sentence() -> None:
    found = damaged("*** in database main ***\nTree 9 page 16 cell 2: invalid page number 7\nPage 3: never used")
    assert cause_of(found) == "the file is damaged (Tree 9 page 16 cell 2: invalid page number 7, Page 3: never used)"
    assert "from a backup" in advice_for(found)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(StoreUnusableError, match="newer"), told_to_operator(Path("state.db")):
        raise StoreUnusableError("newer")
