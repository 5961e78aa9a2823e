"""The checks of ``pgnode doctor``, one by one."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pgnode.cli import checks
from pgnode.cli.seen import SeenCertificate, SeenCore, SeenDisk
from pgnode.cli.target import Target
from pgnode.cli.verdict import verdict
from pgnode.settings import Settings
from pgnode.supervisor.control.report import CoreReport, UsersReport
from tests.unit.cli.found import levels, only, settings_with_identity
from tests.unit.cli.seen_node import FACTS, NOW, REPORT


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return settings_with_identity(tmp_path)


def test_all_of_them_are_done(settings: Settings) -> None:
    at = settings.cert_file.stat().st_mtime
    facts = replace(FACTS, pid=0, report=None, core=None, workers=[], at=at)
    found = list(checks.check_all(Target(settings, None), facts))
    assert [one.text for one in found if one.level == "fail"] == []
    assert any("is down" in one.text for one in found)
    assert len(found) >= 8


def test_what_the_node_cannot_do_without() -> None:
    assert checks.check_surroundings(lambda: None).text.startswith("Python 3.")
    assert checks.check_surroundings(lambda: "/proc is not there").level == "fail"


def test_folders_without_compiled_files() -> None:
    assert list(checks.check_compiled(list)) == []
    found = only(checks.check_compiled(lambda: [Path("/usr/local/lib/python3.13")]))
    assert found.level == "warn"
    assert found.do.endswith(" -m compileall -q /usr/local/lib/python3.13, as a user who may write there")


def test_names_that_mean_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_PROT", "1")
    first, *others = checks.check_settings(settings)
    assert (first.level, first.text) == ("ok", "settings: 5 set, all allowed")
    assert any("did you mean SERVICE_PORT" in one.text for one in others)


def test_how_the_node_is() -> None:
    assert levels(checks.check_node(FACTS)) == ["ok"]
    down = replace(FACTS, pid=0, report=None)
    assert levels(checks.check_node(down)) == ["warn", "fail"], "its core goes on"
    waiting = replace(
        REPORT, core=replace(REPORT.core, waiting="level debug"), users=UsersReport(3, 2, 0, 1), store_error="no room"
    )
    found = list(checks.check_node(replace(FACTS, report=waiting)))
    assert [one.level for one in found] == ["fail", "warn", "warn"]
    assert replace(REPORT, core=CoreReport()).core.pid == 0


def test_what_other_checks_look_at_is_said_once(settings: Settings) -> None:
    """They say what to do; the node's own line does not send anybody to a log that says nothing of it."""
    full = replace(FACTS, disk=SeenDisk(10**12, 10**6, 3))
    assert not verdict(FACTS).because
    assert len(verdict(full).because) == 2
    assert levels(checks.check_node(full)) == ["ok"]
    expired = replace(full, certificate=SeenCertificate("/cert.pem", FACTS.at - 1))
    assert levels(checks.check_node(expired)) == ["ok"]
    settings.cert_file.unlink()
    gone = only(checks.check_certificate(settings, FACTS.at, 812))
    assert (gone.level, gone.do) == ("fail", "pgnode cert renew; panels pin it, so give them the new one")


def test_ports_of_a_node_that_is_down(settings: Settings) -> None:
    assert levels(checks.check_ports(settings, 0)) == ["ok", "ok"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.api_port))
        other.listen()
        found = list(checks.check_ports(settings, 0))
    assert found[0].text == f"API_PORT={settings.api_port} on 127.0.0.1: Address already in use"
    assert found[0].do == "end what listens there, or set API_PORT (or NODE_HOST) to something else"
    # An address of the documentation's, RFC 5737.
    elsewhere = settings.model_copy(update={"node_host": "192.0.2.1"})
    assert {one.do for one in checks.check_free_ports(elsewhere.ports)} == {
        "set NODE_HOST to an address of this machine, or to 0.0.0.0 or :: for all of them"
    }


def test_ports_of_a_node_that_runs(settings: Settings) -> None:
    with socket.socket() as api:
        api.bind(("127.0.0.1", settings.api_port))
        api.listen()
        found = list(checks.check_ports(settings, os.getpid()))
    assert [one.level for one in found] == ["ok", "fail"]
    assert f"SERVICE_PORT={settings.service_port} takes no connections: Connection refused" in found[1].text


def test_the_port_of_metrics_of_a_node_that_runs(settings: Settings) -> None:
    """A node goes on without it, so connections that are taken there may be another program's."""
    with socket.socket() as mine, socket.socket() as free:
        for one in (mine, free):
            one.bind(("127.0.0.1", 0))
        mine.listen()
        port, nobody = (one.getsockname()[1] for one in (mine, free))
        free.close()
        served = settings.model_copy(update={"metrics_port": port, "service_protocol": "none"})
        assert only(checks.check_ports(served, os.getpid())).text == f"METRICS_PORT={port} takes connections"
        with subprocess.Popen(("cat",), stdin=subprocess.PIPE) as node:
            taken = only(checks.check_ports(served, node.pid))
            unserved = only(checks.check_ports(served.model_copy(update={"metrics_port": nobody}), node.pid))
    assert (taken.level, taken.text) == ("fail", f"METRICS_PORT={port} is not served: Address already in use")
    assert taken.do == "end what listens there, or set METRICS_PORT (or METRICS_HOST) to something else"
    assert unserved.text == f"METRICS_PORT={nobody} is not served: nobody listens there"
    elsewhere = served.model_copy(update={"metrics_host": "192.0.2.1"})
    assert only(checks.check_ports(elsewhere, 0)).do == (
        "set METRICS_HOST to an address of this machine: 127.0.0.1 is for itself alone"
    )


def test_the_certificate(settings: Settings) -> None:
    at = settings.cert_file.stat().st_mtime
    assert "ok" in levels(checks.check_certificate(settings, at))
    for days, level in ((3645, "warn"), (3660, "fail")):
        assert levels(checks.check_certificate(settings, at + days * 86_400))[0] == level
    elsewhere = settings.model_copy(update={"node_host": "192.0.2.77"})
    assert "the certificate lacks 192.0.2.77" in list(checks.check_certificate(elsewhere, at))[-1].text
    behind = settings.model_copy(update={"cert_names": "203.0.113.9"})
    assert "the certificate lacks 203.0.113.9" in list(checks.check_certificate(behind, at))[-1].text
    settings.cert_key_file.write_text("nonsense")
    assert only(checks.check_certificate(settings, at)).level == "fail"
    settings.cert_file.unlink()
    assert only(checks.check_certificate(settings, at)).level == "warn"


def test_the_clock(settings: Settings) -> None:
    at = settings.cert_file.stat().st_mtime
    assert only(checks.check_clock(settings, at)).level == "ok"
    assert "the clock is behind" in only(checks.check_clock(settings, at - 86_400)).text


def test_open_files(tmp_path: Path) -> None:
    for pid, limit in ((51, "1024"), (52, "unlimited"), (6, "1048576"), (900, "1048576")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "limits").write_text(f"Limit\nMax open files  {limit}  {limit}  files\n")
    facts = replace(FACTS, workers=[worker for worker in FACTS.workers if worker.pid != 52])
    assert only(checks.check_open_files(facts, tmp_path)).text.startswith("REST workers: 1,024 open files at most")
    (tmp_path / "51" / "limits").write_text("Max open files  1048576  1048576  files\n")
    assert only(checks.check_open_files(facts, tmp_path)).level == "ok"
    assert levels(checks.check_open_files(facts, tmp_path / "nowhere")) == []


def test_ports_in_the_range_of_outgoing_connections(tmp_path: Path) -> None:
    (tmp_path / "ip_local_port_range").write_text("32768\t60999\n")
    (tmp_path / "ip_local_reserved_ports").write_text("40000-40010,41234\n")
    assert only(checks.check_port_range({443: "x", 40005: "x", 41234: "x"}, tmp_path)).level == "ok"
    found = only(checks.check_port_range({443: "x", 50000: "an inbound"}, tmp_path))
    assert found.text.startswith("an inbound listens on 50000, which Linux also gives")
    assert found.do == "sysctl net.ipv4.ip_local_reserved_ports=50000"
    assert levels(checks.check_port_range({}, tmp_path)) == []
    assert levels(checks.check_port_range({443: "x"}, tmp_path / "nowhere")) == []


def test_ports_of_the_core_are_what_it_listens_on() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        facts = replace(FACTS, core=SeenCore(os.getpid(), "embedded", 1.0))
        assert server.getsockname()[1] in checks.listening_ports(facts)
    assert checks.listening_ports(replace(FACTS, core=None)) == {}
    assert checks.listening_ports(replace(FACTS, core=SeenCore(4_194_305, "embedded", 1.0))) == {}
    assert NOW > 0
