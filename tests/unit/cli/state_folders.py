"""State folders of nodes, for tests of backups."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pgnode.cli.target import Named
from pgnode.os_support import fault_points
from pgnode.settings import Settings, load
from pgnode.store.changes import StoreChanges
from pgnode.store.database import Database
from pgnode.store.reader import read_state
from pgnode.store.rows import LedgerRow, LedgerRun
from pgnode.store.state import StoredState
from pgnode.supervisor.host.key_rotation import rotate_key
from pgnode.testing.faults import ArmedFaults
from tests.support.identities import make_identity

UP = "user>>>1.alice>>>traffic>>>uplink"


@dataclass
class Folder:
    """A node's state folder."""

    path: Path

    @property
    def settings(self) -> Settings:
        return load(state_dir=str(self.path))

    @property
    def named(self) -> Named:
        return Named(state_dir=self.path)

    @property
    def stored(self) -> StoredState:
        found = read_state(self.path / "state.db")
        assert found is not None
        return found

    @property
    def identity(self) -> dict[str, bytes]:
        names = ("api_key", "api_key.previous", "tls/cert.pem", "tls/key.pem")
        return {name: (self.path / name).read_bytes() for name in names if (self.path / name).exists()}

    def make(self) -> None:
        make_identity(self.settings)

    def write(self, changes: StoreChanges) -> None:
        database = Database.open(self.path / "state.db")
        database.write(changes)
        database.close()

    def content(self) -> dict[str, bytes]:
        """All files, but for those that come and go with a lock or a look."""
        found = (path for path in self.path.rglob("*") if path.is_file())
        passing = ("node.lock", "state.db-wal", "state.db-shm")
        return {str(path.relative_to(self.path)): path.read_bytes() for path in found if path.name not in passing}

    def rotate_key(self) -> None:
        rotate_key(self.settings, datetime.timedelta(hours=1), datetime.datetime.now(datetime.UTC))


def leave_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let nothing of this environment say which node is meant, or what its settings are."""
    for name in ("STATE_DIR", "API_KEY", "API_KEY_FILE", "SSL_CERT_FILE", "SSL_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def make_node(folder: Path) -> Folder:
    """Make a node that has two users, and owes 200 bytes of one's traffic."""
    made = Folder(folder)
    made.make()
    made.write(
        StoreChanges(
            meta={"backend": b"config", "active": 1, "core_run": 7},
            users={"alice": b"1", "bob": b"2"},
            run=LedgerRun(3, "core 3"),
            counters={UP: LedgerRow(500, 300, 200, 3)},
        )
    )
    return made


@contextlib.contextmanager
def armed_here(folder: Path) -> Iterator[ArmedFaults]:
    """Arm points of this process."""
    made = ArmedFaults(folder)
    fault_points.use_folder(made.folder)
    try:
        yield made
    finally:
        fault_points.use_folder(None)
