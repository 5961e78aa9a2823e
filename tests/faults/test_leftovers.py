"""What looks for leftovers finds them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.testing.node import NodeProcess
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


def test_sockets(node: NodeProcess) -> None:
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", node.api_port)):
        unix.bind(str(node.run_dir / "core.sock"))
        assert after_the_end(node).left == ["file run/core.sock", f"somebody listens on port {node.api_port}"]
