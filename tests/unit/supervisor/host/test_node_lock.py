"""Which node runs, and what it can be told."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from pgnode.errors import OperatorError
from pgnode.settings import Settings, load
from pgnode.supervisor.host import identity
from pgnode.supervisor.host.node_lock import LOCK_NAME, may_be_signalled, running_pid


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load(state_dir=str(tmp_path / "state"))
    identity.prepare_state_dir(found)
    return found


def test_the_holder_of_the_lock_is_the_node(settings: Settings) -> None:
    assert running_pid(settings) is None
    with identity.lock_state_dir(settings):
        assert running_pid(settings) == os.getpid()
    assert running_pid(settings) is None, "the file stays, and is held by nobody"


def test_a_lock_is_taken_over_without_a_gap(settings: Settings) -> None:
    first = identity.lock_state_dir(settings)
    with identity.lock_state_dir(settings, os.dup(first.fileno())) as second:
        first.close()
        assert running_pid(settings) == os.getpid()
        assert second.fileno() >= 0
    with identity.lock_state_dir(settings, 987_654):
        assert running_pid(settings) == os.getpid()


def test_nonsense_in_the_file_names_nobody(settings: Settings) -> None:
    (settings.run_dir / LOCK_NAME).write_text("nobody")
    assert running_pid(settings) is None
    (settings.run_dir / LOCK_NAME).write_text("4194305")
    assert running_pid(settings) is None


def test_another_users_process_is_told(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (settings.run_dir / LOCK_NAME).write_text("77")

    def denied(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(OperatorError, match="process 77 is another user's"):
        running_pid(settings)


def test_a_descriptor_that_closes_meanwhile_is_passed_over(settings: Settings, tmp_path: Path) -> None:
    (settings.run_dir / LOCK_NAME).write_text("77")
    folder = tmp_path / "proc" / "77" / "fd"
    folder.mkdir(parents=True)
    (folder / "0").symlink_to("/no/such/file")
    (folder / "1").symlink_to(settings.run_dir / LOCK_NAME)
    assert running_pid(settings, tmp_path / "proc") == 77


def test_only_who_handles_a_signal_gets_it(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "600"])
    try:
        assert not may_be_signalled(process.pid, signal.SIGUSR2)
    finally:
        process.kill()
        process.wait()
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        assert may_be_signalled(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert not may_be_signalled(77, signal.SIGUSR2, tmp_path)


def test_a_node_that_has_more_rights_is_found_by_the_kernels_list_of_locks(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = settings.run_dir / LOCK_NAME
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("77\n")
    (tmp_path / "proc" / "77" / "fd").mkdir(parents=True)
    (tmp_path / "proc" / "77" / "fd" / "3").touch()
    plain = Path.stat

    def stat(path: Path, **how: bool) -> os.stat_result:
        if path.parent.name == "fd":
            raise PermissionError(13, "Permission denied")
        return plain(path, **how)

    monkeypatch.setattr(Path, "stat", stat)
    found = lock.stat()
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    (tmp_path / "proc" / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 77 {place} 0 EOF\n")
    assert running_pid(settings, tmp_path / "proc") == 77
    (tmp_path / "proc" / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 78 {place} 0 EOF\n")
    with pytest.raises(OperatorError, match="or has more rights"):
        running_pid(settings, tmp_path / "proc")
