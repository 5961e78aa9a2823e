"""Which nodes run here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.settings import load
from pgnode.supervisor.host import identity
from pgnode.supervisor.host.running_nodes import RunningNode, running_nodes, user_name


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose lock this process holds."""
    settings = load(state_dir=str(tmp_path / "state"))
    identity.prepare_state_dir(settings)
    with identity.lock_state_dir(settings):
        yield settings.state_dir


def proc_with(tmp_path: Path, command: bytes, descriptors: dict[str, Path]) -> Path:
    """A folder of processes, one of which has that command line and those descriptors."""
    process = tmp_path / "proc" / "77"
    (process / "fd").mkdir(parents=True)
    (process / "cmdline").write_bytes(command)
    (tmp_path / "proc" / "self").mkdir()
    for name, target in descriptors.items():
        (process / "fd" / name).symlink_to(target)
    return tmp_path / "proc"


def test_whoever_holds_a_lock_is_a_node(tmp_path: Path, held: Path) -> None:
    proc = proc_with(tmp_path, b"python\0-m\0pgnode\0run", {"3": Path("/dev/null"), "4": held / "run" / "node.lock"})
    found = running_nodes(proc)
    assert found == [RunningNode(77, held, user_name(os.geteuid()))]
    assert str(found[0]) == f"STATE_DIR={held} (pid 77, user {user_name(os.geteuid())})"


def test_other_processes_are_none(tmp_path: Path, held: Path) -> None:
    proc = proc_with(tmp_path, b"vim\0state.db", {"4": held / "run" / "node.lock"})
    assert running_nodes(proc) == []


def test_a_folder_that_this_machine_does_not_know_is_left_out(tmp_path: Path) -> None:
    proc = proc_with(tmp_path, b"pgnode\0run", {"4": Path("/nowhere/run/node.lock"), "5": tmp_path / "node.lock"})
    assert running_nodes(proc) == []


def test_what_may_not_be_looked_at_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "proc" / "77").mkdir(parents=True)
    assert running_nodes(tmp_path / "proc") == []
    assert running_nodes(tmp_path / "nowhere") == []


def test_a_real_process_is_found(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    code = "import sys; f = open(sys.argv[1], 'w'); print('there', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "run" / "node.lock"), "pgnode"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        assert RunningNode(process.pid, tmp_path, user_name(os.geteuid())) in running_nodes()
        process.communicate()


def test_a_user_without_a_name_is_its_number() -> None:
    assert user_name(4_000_000_123) == "4000000123"
    assert user_name(0) == "root"
