"""The file: what is written is read back, whole or not at all, whatever became of the file in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.errors import StoreUnusableError
from pgnode.os_support import fault_points
from pgnode.store.changes import StoreChanges
from pgnode.store.database import PAGE_BYTES, Database, StoreWriteError
from pgnode.store.reader import read_state
from pgnode.store.rows import LedgerRow, LedgerRun, LoanPart, RejectedUser
from pgnode.store.schema import MIGRATIONS, VERSION
from pgnode.store.state import StoredState
from pgnode.supervisor.traffic.response_encoding import encode_stats
from pgnode.testing.faults import ArmedFaults

KEYS = st.sampled_from(["a", "b", "c", "d"])
NUMBERS = st.integers(0, 2**62)
TEXTS = st.text(max_size=5)
CHANGES = st.builds(
    StoreChanges,
    meta=st.fixed_dictionaries(
        {}, optional={"backend": st.none() | st.binary(max_size=3), "active": st.integers(0, 1), "core_run": NUMBERS}
    ),
    user_set=st.none() | st.dictionaries(KEYS, st.binary(max_size=3)),
    users=st.dictionaries(KEYS, st.none() | st.binary(max_size=3)),
    rejected=st.dictionaries(
        KEYS, st.none() | st.builds(RejectedUser, TEXTS, TEXTS, NUMBERS, st.binary(max_size=3), st.booleans())
    ),
    superseded=st.dictionaries(KEYS, st.none() | TEXTS),
    taken=st.dictionaries(KEYS, st.none() | TEXTS),
    routing=st.dictionaries(KEYS, st.none() | TEXTS),
    run=st.none() | st.builds(LedgerRun, st.integers(0, 9), st.just("boot:1:2")),
    counters=st.dictionaries(KEYS, st.none() | st.builds(LedgerRow, NUMBERS, NUMBERS, NUMBERS, NUMBERS)),
    loans=st.dictionaries(KEYS, st.none() | st.builds(LoanPart, TEXTS, TEXTS, TEXTS, st.binary(max_size=3))),
    settled=st.dictionaries(KEYS, st.none() | st.booleans()),
)


def expected(written: list[StoreChanges]) -> StoredState:
    """What a store holds that took these changes."""
    state = StoredState()
    for changes in written:
        state.backend = changes.meta.get("backend", state.backend)  # type: ignore[assignment]
        state.known |= "active" in changes.meta
        state.active = bool(changes.meta.get("active", state.active))
        state.core_run = int(changes.meta.get("core_run", state.core_run) or 0)
        state.run = changes.run or state.run
        state.users = dict(changes.user_set) if changes.user_set is not None else state.users
        for name in ("users", "rejected", "superseded", "taken", "routing", "counters", "loans", "settled"):
            rows = getattr(state, name)
            for key, row in getattr(changes, name).items():
                rows.pop(key, None) if row is None else rows.update({key: row})
    return state


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="pgn"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "state.db"


def some_users(path: Path, count: int = 200) -> None:
    database = Database.open(path)
    database.write(StoreChanges(users={f"user{number}": bytes(200) for number in range(count)}))
    database.close()


@given(
    st.lists(
        st.tuples(CHANGES, st.sampled_from(["go on", "fold", "fold a little", "open again", "killed"])), max_size=8
    )
)
def test_what_is_written_is_read_back(steps: list[tuple[StoreChanges, str]]) -> None:
    root = folder = Path(tempfile.mkdtemp(prefix="pgn"))
    path = folder / "state.db"
    database = Database.open(path, fold_step_rows=1)
    folding: Iterator[None] | None = None
    try:
        for number, (changes, then) in enumerate(steps, 1):
            database.write(changes)
            if then == "fold":
                database.fold()
                folding = None
            elif then == "fold a little":
                folding = folding if folding is not None else database.fold_steps()
                if next(folding, "done") == "done":
                    folding = None
                assert database.load() == expected([done for done, _ in steps[:number]])
            elif then == "open again":
                folding = None
                database.close()
                assert not path.with_name("state.db-wal").exists()
                database = Database.open(path, fold_step_rows=1)
            elif then == "killed":
                # As they are on the disk, without whatever an orderly end does.
                copy = Path(tempfile.mkdtemp(prefix="pgn", dir=folder))
                for name in ("state.db", "state.db-wal"):
                    if (folder / name).exists():
                        shutil.copy(folder / name, copy / name)
                database.close()
                path = copy / "state.db"
                folder, folding = copy, None
                database = Database.open(path, fold_step_rows=1)
        assert database.load() == expected([changes for changes, _ in steps])
        assert read_state(path) == database.load()
    finally:
        database.close()
        shutil.rmtree(root)


def test_who_changed_since_all_were_stored_is_counted(path: Path) -> None:
    database = Database.open(path)
    database.write(StoreChanges(users={"a": b"1", "b": b"1"}))
    assert database.load().changed_users == 2
    database.write(StoreChanges(user_set={"a": b"2", "b": b"2", "c": b"2"}))
    database.write(StoreChanges(users={"a": b"3", "b": None, "d": None}))
    database.close()
    database = Database.open(path)
    database.write(StoreChanges(users={"c": None}))
    state = database.load()
    assert (state.users, state.changed_users) == ({"a": b"3"}, 4)
    database.write(StoreChanges(user_set={}))
    state = database.load()
    assert (state.users, state.changed_users) == ({}, 0)
    database.close()


def test_rows_come_back_in_the_order_in_which_they_were_written(path: Path) -> None:
    database = Database.open(path)
    for name in ("c", "a", "b"):
        database.write(StoreChanges(taken={name: "routing"}, settled={name: True}))
    state = database.load()
    assert (list(state.taken), list(state.settled)) == (["c", "a", "b"], ["c", "a", "b"])
    database.close()


def test_the_file_is_for_this_user_alone(path: Path) -> None:
    some_users(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_log_of_counters_is_folded_when_it_is_long(path: Path) -> None:
    rows = [{f"user>>>{name}": LedgerRow(number, 0, 0, 1)} for number, name in enumerate("aba")]
    database = Database.open(path, fold_rows=3)
    for row in rows[:2]:
        database.write(StoreChanges(counters=dict(row)))
        assert not database.fold_due()
    database.close()
    database = Database.open(path, fold_rows=3)
    database.write(StoreChanges(counters=dict(rows[2])))
    assert database.fold_due(), "it is known how long it was"
    database.fold()
    assert not database.fold_due()
    assert database.load().counters == {"user>>>a": LedgerRow(2, 0, 0, 1), "user>>>b": LedgerRow(1, 0, 0, 1)}
    database.write(StoreChanges(counters={"user>>>a": None}))
    assert list(database.load().counters) == ["user>>>b"]
    database.close()


def test_many_rows_are_read_back(path: Path) -> None:
    users = {f"{number * 7919 % 6007}@demo": bytes([number % 251]) for number in range(6007)}
    database = Database.open(path)
    database.write(StoreChanges(users=dict(users), counters={name: LedgerRow(1, 2, 3, 4) for name in users}))
    database.fold()
    state = database.load()
    assert state.users == users
    assert len(state.counters) == len(users)
    database.close()


# --- files that cannot be used ----------------------------------------------------------------------------------


def refused(path: Path, **options: float) -> str:
    with (
        pytest.raises(StoreUnusableError) as caught,
        contextlib.closing(Database.open(path, **options)) as database,  # type: ignore[arg-type]
    ):
        database.load()
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    some_users(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    text = refused(path)
    assert f"{path} was written by a newer pgnode (schema {VERSION + 1}, this one knows {VERSION})" in text
    assert path.read_bytes() == before
    with pytest.raises(StoreUnusableError, match="newer pgnode"):
        read_state(path)


def test_another_programs_file_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (id)")
    connection.close()
    assert f"{path} is not a file of this node's: move it away" in refused(path)


def test_a_truncated_file_is_refused(path: Path) -> None:
    some_users(path)
    os.truncate(path, path.stat().st_size // 2)
    text = refused(path)
    assert "damaged" in text
    assert "restore it from a backup, or move it away" in text


def test_garbage_in_the_middle_is_refused(path: Path) -> None:
    some_users(path)
    with path.open("r+b") as handle:
        # Where a page begins: behind that it may be empty.
        handle.seek(path.stat().st_size // 2 // PAGE_BYTES * PAGE_BYTES)
        handle.write(os.urandom(8192))
    text = refused(path)
    assert "the file is damaged" in text
    assert "restore it from a backup" in text
    assert "\n" not in text


def test_a_file_of_garbage_is_refused(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))
    assert "the file is damaged" in refused(path)
    with pytest.raises(StoreUnusableError, match="cannot be read: the file is damaged"):
        read_state(path)


def test_a_damaged_row_of_the_log_is_refused(path: Path) -> None:
    database = Database.open(path)
    database._db.execute("INSERT INTO counter_log (packed) VALUES (x'0123')")
    with pytest.raises(StoreWriteError, match="a row of the log of counters is damaged"):
        database.fold()
    database.close()
    assert "a row of the log of counters is damaged" in refused(path)


def test_a_folder_that_is_missing_is_named(folder: Path) -> None:
    assert f"{folder}/none/state.db cannot be opened: No such file or directory; let this user" in refused(
        folder / "none" / "state.db"
    )


def test_rows_are_as_the_loans_say_that_are_open(path: Path) -> None:
    part = LoanPart("l", "user", "w", encode_stats([("user>>>a>>>traffic>>>uplink", 5)]))
    database = Database.open(path)
    database.write(StoreChanges(loans={"l:0": part}, run=LedgerRun(2, "core")))
    assert database.load().counters == {"user>>>a>>>traffic>>>uplink": LedgerRow(5, 0, 5, 2)}
    database.close()


def test_an_empty_file_is_a_new_store(path: Path) -> None:
    path.touch()
    assert read_state(path) is None
    some_users(path, 1)
    state = read_state(path)
    assert state is not None
    assert list(state.users) == ["user0"]


def test_a_file_that_another_process_writes_is_refused_at_the_start(path: Path) -> None:
    some_users(path, 1)
    with locked(path):
        text = refused(path, busy_seconds=0.05)
    assert "another process is writing to it" in text
    assert "end that process" in text


def test_a_file_of_the_first_schema_is_read_and_migrated(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute("INSERT INTO users VALUES ('alice', x'01')")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    state = read_state(path)
    assert state is not None
    assert state.users == {"alice": b"\x01"}
    database = Database.open(path)
    database.write(StoreChanges(users={"alice": None, "bob": b"2"}))
    assert database.load().users == {"bob": b"2"}
    database.close()


def test_a_damaged_set_of_users_is_refused(path: Path) -> None:
    database = Database.open(path)
    database.write(StoreChanges(user_set={"alice": b"1"}))
    database._db.execute("UPDATE user_set SET packed = x'070000'")
    database.close()
    assert "cut short" in refused(path)


def test_an_older_schema_is_migrated(path: Path) -> None:
    some_users(path, 1)
    migrations = (*MIGRATIONS, ("CREATE TABLE more (id INTEGER PRIMARY KEY)",))
    database = Database.open(path, migrations=migrations)
    assert list(database.load().users) == ["user0"]
    assert database._db.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
    assert database._db.execute("SELECT count(*) FROM more").fetchone() == (0,)
    database.close()


# --- commits that fail ------------------------------------------------------------------------------------------


class locked:
    """Another process that is in the middle of a transaction."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        code = "import sqlite3,sys; d=sqlite3.connect(sys.argv[1],isolation_level=None); d.execute('BEGIN IMMEDIATE'); "
        code += "print('locked',flush=True); sys.stdin.read()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(self._path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"locked\n"

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def test_a_full_disk_takes_nothing_and_goes_on_with_room(path: Path) -> None:
    database = Database.open(path)
    database.write(StoreChanges(users={"first": b"1"}))
    [pages] = database._db.execute("PRAGMA page_count").fetchone()
    database._db.execute(f"PRAGMA max_page_count = {pages + 3}")
    large = StoreChanges(users={"first": None, **{f"user{number}": bytes(2_000) for number in range(100)}})
    with pytest.raises(StoreWriteError, match="no room on the disk"):
        database.write(large)
    assert database.load().users == {"first": b"1"}, "nothing of it"
    database.write(StoreChanges(users={"second": b"2"}))
    database._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
    database.write(large)
    assert len(database.load().users) == 101
    database.close()


def test_a_lock_of_another_process_fails_the_commit(path: Path) -> None:
    database = Database.open(path, busy_seconds=0.05)
    database.write(StoreChanges(counters={"a": LedgerRow(1, 1, 1, 1)}))
    with locked(path):
        with pytest.raises(StoreWriteError, match="another process is writing to it"):
            database.write(StoreChanges(users={"a": b"1"}))
        with pytest.raises(StoreWriteError, match="another process is writing to it"):
            database.fold()
        assert database.load().users == {}, "reading goes on"
    database.write(StoreChanges(users={"a": b"1"}))
    assert database.load().users == {"a": b"1"}
    database.close()


@pytest.mark.parametrize("sync_always", [False, True])
def test_the_disk_is_told(path: Path, *, sync_always: bool) -> None:
    database = Database.open(path, sync_always=sync_always)
    database.sync()
    database.write(StoreChanges(users={"a": b"1"}))
    database.sync()
    database.sync()
    database.close()
    database.close()


def test_every_table_is_written_and_read() -> None:
    tables = {part.name for part in fields(StoreChanges)} - {"meta", "user_set", "departed_done"}
    assert tables <= {part.name for part in fields(StoredState)}


# --- what the system says in place of SQLite ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ENOSPC", r"no room on the disk .*; make room on the disk of STATE_DIR, the node then goes on by itself"),
        ("EDQUOT", r"no room on the disk .*; make room in this user's quota"),
        ("EROFS", r"cannot be written by this user .*; let this user write STATE_DIR"),
        ("EIO", r"the disk reports an error .*; see the kernel's log"),
        ("EMFILE", r"cannot be opened .*; let the node open more files"),
        ("EDEADLK", r"; see the kernel's log"),
    ],
)
def test_an_error_of_the_system_is_one_of_the_store(path: Path, tmp_path: Path, name: str, told: str) -> None:
    database = Database.open(path)
    faults = ArmedFaults(tmp_path / "fault-points")
    fault_points.use_folder(faults.folder)
    try:
        faults.arm("store.write", f"raise {name}")
        with pytest.raises(StoreWriteError, match=told):
            database.write(StoreChanges(users={"a": b"1"}))
    finally:
        fault_points.use_folder(None)
    database.write(StoreChanges(users={"a": b"1"}))
    assert database.load().users == {"a": b"1"}
    database.close()


def test_room_is_asked_for_before_it_is_needed(path: Path) -> None:
    database = Database.open(path)
    database.require_room(1000)
    with pytest.raises(StoreWriteError, match=r"no room on the disk \(.* bytes free, .* needed\); make room"):
        database.require_room(2**60)
    database._db.execute("PRAGMA query_only = 1")
    with pytest.raises(StoreWriteError, match="cannot be written by this user"):
        database.require_room(1000)
    database.close()


@pytest.mark.parametrize("odd", ["fifo", "device"])
def test_what_is_no_regular_file_is_refused(path: Path, odd: str) -> None:
    if odd == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    assert "is no regular file: move it away" in refused(path)


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()
    assert refused(path) == f"{path} is a folder: move it away, or choose another STATE_DIR"
