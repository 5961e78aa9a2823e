"""What looks for leftovers finds them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pgnode.testing.node import NodeProcess
from tests.faults import leftovers
from tests.faults.leftovers import after_the_end


@pytest.fixture
def node(tmp_path: Path) -> NodeProcess:
    """One that has ended in good order."""
    made = NodeProcess(state_dir=tmp_path / "state")
    (made.state_dir / "tls").mkdir(parents=True)
    made.run_dir.mkdir()
    for name in ("state.db", "tls/cert.pem", "run/children.json", "run/children.json.new", "run/core.json.unusable"):
        (made.state_dir / name).touch()
    return made


@contextlib.contextmanager
def process_in(folder: Path) -> Iterator[None]:
    with subprocess.Popen(["sleep", "600"], cwd=folder) as process:
        yield
        process.kill()


def test_a_node_that_ended_in_good_order(node: NodeProcess) -> None:
    found = after_the_end(node)
    assert (found.left, found.looked > 5) == ([], True)


@pytest.mark.parametrize("name", ["run/maintenance.json", "cores/26.11.1/xray", "run/core.json", "tmp1234"])
def test_a_file(node: NodeProcess, name: str) -> None:
    path = node.state_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert f"file {name}" in after_the_end(node).left


def test_a_process(node: NodeProcess) -> None:
    with process_in(node.run_dir):
        (left,) = after_the_end(node).left
    assert left.endswith("sleep 600")
    assert after_the_end(node).left == []


@pytest.fixture
def worker(node: NodeProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A process that looks like a REST worker of the node, and opens what it is told to."""
    code = (
        "import os, sys\nfor line in sys.stdin: [os.open(os.devnull, 0) for _ in range(int(line))]; print(flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "-m gunicorn"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        monkeypatch.setattr(leftovers, "tree", lambda _pid: [psutil.Process(process.pid)])
        monkeypatch.setattr(type(node), "pid", os.getpid())
        yield process
        process.kill()


def opened(worker: subprocess.Popen[str], count: int) -> None:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{count}\n")
    worker.stdin.flush()
    worker.stdout.readline()


def test_descriptors_of_a_worker(node: NodeProcess, worker: subprocess.Popen[str]) -> None:
    def look() -> list[str]:
        found = leftovers.Found()
        leftovers._look_at_descriptors(node, found)
        return found.left

    opened(worker, 0)
    assert look() == []
    opened(worker, 2)
    assert look() == []
    opened(worker, 1)
    assert look() == [f"3 more descriptors of the kind 'file' in the worker {worker.pid}"]


def test_connections_of_callers_are_not_counted_and_those_that_they_left_are() -> None:
    process = psutil.Process()
    before = leftovers.connections_of(process)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as caller,
        listening.accept()[0],
    ):
        assert leftovers.connections_of(process) == before + 2
        caller.close()
        assert leftovers.connections_of(process) == before


def test_sockets(node: NodeProcess) -> None:
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", node.api_port)):
        unix.bind(str(node.run_dir / "core.sock"))
        assert after_the_end(node).left == ["file run/core.sock", f"somebody listens on port {node.api_port}"]
