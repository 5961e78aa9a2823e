"""What is found out about a node from outside."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import psutil
import pytest

from pgnode.cli import facts as facts_module
from pgnode.cli.facts import find_facts, seen_certificate, seen_core, seen_disk, seen_store, seen_workers
from pgnode.cli.target import Target
from pgnode.settings import Settings, load
from pgnode.store.database import Database
from pgnode.supervisor.control.messages import SOCKET_NAME, encode_answer, encode_error
from pgnode.supervisor.control.report import NodeReport
from pgnode.supervisor.host import identity
from pgnode.xray.process.record import CoreRecord, boot_id, start_ticks, write_record
from tests.support.identities import make_identity


@pytest.fixture
def settings() -> Iterator[Settings]:
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    made = load(state_dir=str(folder))
    identity.prepare_state_dir(made)
    yield made
    shutil.rmtree(folder)


def says(settings: Settings, answer: bytes) -> threading.Thread:
    """Let somebody listen who says this, once."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(settings.run_dir / SOCKET_NAME))
    server.listen()

    def serve() -> None:
        connection, _ = server.accept()
        with connection, server:
            connection.recv(1000)
            connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_a_node_that_runs_speaks_for_itself(settings: Settings) -> None:
    make_identity(settings)
    report = NodeReport(pid=os.getpid(), addresses=["REST 192.0.2.1:1"], cert_file=str(settings.cert_file))
    thread = says(settings, encode_answer(report.encode()))
    facts = find_facts(Target(settings, os.getpid(), "so"), ask_seconds=30)
    thread.join(30)
    assert (facts.report, facts.silence, facts.hangs, facts.why) == (report, "", False, "so")
    assert facts.api == ["REST 192.0.2.1:1"]
    assert "localhost" in facts.certificate.names
    assert facts.certificate.self_signed
    assert facts.up_seconds > 0


def test_a_node_that_is_down_is_asked_nothing(settings: Settings) -> None:
    facts = find_facts(Target(settings, None))
    assert (facts.report, facts.silence, facts.pid, facts.workers, facts.up_seconds) == (None, "", 0, [], 0.0)
    assert facts.api[0] == "REST 0.0.0.0:62050"


def test_why_it_does_not_answer_is_found_out(settings: Settings) -> None:
    target = Target(settings, os.getpid())
    assert "nobody listens" in find_facts(target).silence
    thread = says(settings, encode_error("not for you"))
    facts = find_facts(target, ask_seconds=30)
    thread.join(30)
    assert (facts.silence, facts.hangs) == ("not for you", False)


def test_one_that_stands_still_hangs(settings: Settings) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(settings.run_dir / SOCKET_NAME))
        server.listen()
        facts = find_facts(Target(settings, os.getpid()), ask_seconds=0.01)
        assert (facts.silence, facts.hangs) == ("it did not answer within 0.01 s", True)
        with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
            other.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, other.pid, os.WSTOPPED)
            facts = find_facts(Target(settings, other.pid), ask_seconds=0.01)
            other.kill()
        assert facts.silence.startswith("it was stopped by a signal (SIGSTOP)")


def test_a_core_is_known_by_its_record(settings: Settings) -> None:
    assert seen_core(settings) is None
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as core:
        record = CoreRecord(core.pid, start_ticks(core.pid), boot_id(), "", "embedded")
        write_record(settings.run_dir, record)
        found = seen_core(settings)
        assert found is not None
        assert (found.pid, found.kind) == (core.pid, "embedded")
        core.kill()
        os.waitid(os.P_PID, core.pid, os.WEXITED | os.WNOWAIT)
        assert seen_core(settings) is None, "it has ended, though nobody took note"
    assert seen_core(settings) is None


def test_a_system_that_does_not_tell_when_it_was_booted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /proc/stat is empty."""
    monkeypatch.setattr(psutil.Process, "create_time", mock.Mock(side_effect=RuntimeError("line 'btime' not found")))
    assert facts_module._up_seconds(os.getpid()) == 0.0
    assert seen_workers(os.getpid()) == []


def test_workers_are_known_by_their_command_lines() -> None:
    script = "sleep 300 & echo there; wait"
    names = ("file:/opt/pgnode/worker/gunicorn_conf.py", "pgnode.worker.grpc_worker")
    children = [
        subprocess.Popen(["/bin/sh", "-c", script, name], stdout=subprocess.PIPE, start_new_session=True)
        for name in names
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"there\n"
        rest, grpc = seen_workers(os.getpid())
        assert (rest.kind, grpc.kind, grpc.pid) == ("rest", "grpc", children[1].pid)
        assert rest.pid != children[0].pid, "the master is no worker"
        assert grpc.memory_bytes > 0
    finally:
        for child in children:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    assert seen_workers(0) == []
    assert seen_workers(children[0].pid) == [], "it has gone"


def test_the_store_is_looked_at(settings: Settings) -> None:
    assert seen_store(settings.store_path).written_at == 0
    Database.open(settings.store_path).close()
    found = seen_store(settings.store_path)
    assert found.held is not None
    assert found.size_bytes > 0
    settings.store_path.write_bytes(b"nonsense" * 1000)
    assert "damaged" in seen_store(settings.store_path).error


def test_the_disk_is_looked_at(settings: Settings) -> None:
    found = seen_disk(settings.state_dir)
    assert found is not None
    assert 0 < found.free_bytes <= found.total_bytes
    assert seen_disk(settings.state_dir / "nowhere") is None


def test_a_certificate_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert seen_certificate(tmp_path / "nowhere").error == "No such file or directory"
    (tmp_path / "cert.pem").write_text("nonsense")
    assert seen_certificate(tmp_path / "cert.pem").error == "it holds no certificate that can be read"
