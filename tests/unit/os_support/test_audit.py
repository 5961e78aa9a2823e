"""The audit trail: what belongs there is written, a disk that hangs holds nobody up, and the file bounds itself."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from unittest import mock

from structlog.testing import capture_logs

from pgnode.os_support import audit
from pgnode.os_support.audit import FIELD, MAX_BYTES, WAITING_MAX, AuditTrail, append_entry, operator_fields
from pgnode.os_support.log_lines import Entry

LONG_SECONDS = 30.0
NAME = "audit.log"


def entry(message: str = "called", **fields: object) -> Entry:
    return Entry(5.0, "info", "rest", 7, message, fields)


def said(path: Path) -> list[str]:
    return [json.loads(line)["message"] for line in path.read_text().splitlines()]


def test_lines_with_the_field_are_written_and_others_are_not(tmp_path: Path) -> None:
    path = tmp_path / NAME
    trail = AuditTrail(path)
    trail.note(entry("first", **{FIELD: "call"}))
    trail.note(entry("no"))
    trail.note(entry("second", **{FIELD: "node"}))
    assert trail.drain(LONG_SECONDS)
    assert said(path) == ["first", "second"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert repr(trail) == f"AuditTrail({path}, 0 waiting, 0 dropped)"


def test_without_a_file_nothing_is_kept() -> None:
    trail = AuditTrail(None)
    trail.note(entry(**{FIELD: "call"}))
    assert trail.drain(0)
    assert "0 waiting" in repr(trail)


def test_a_disk_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    goes_on = threading.Event()
    trail = AuditTrail(tmp_path / NAME)

    def hang(*_: object) -> None:
        assert goes_on.wait(LONG_SECONDS)

    with mock.patch.object(audit, "append_entry", side_effect=hang):
        for _ in range(WAITING_MAX + 10):
            trail.note(entry(**{FIELD: "call"}))
        assert not trail.drain(0)
        assert trail.dropped >= 9
        assert trail.error == "the disk is too slow"
        goes_on.set()
        assert trail.drain(LONG_SECONDS)


def test_a_line_that_cannot_be_written_is_counted(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "missing" / NAME)
    trail.note(entry(**{FIELD: "call"}))
    assert trail.drain(LONG_SECONDS)
    assert (trail.dropped, trail.error) == (1, "No such file or directory")
    with capture_logs() as logged:
        for _ in range(2):
            trail.note(entry(**{FIELD: "call"}))
            assert trail.drain(LONG_SECONDS)
    assert [(line["event"], line["lost"]) for line in logged] == [("audit trail not written", 1)], "said once"
    (tmp_path / "missing").mkdir()
    trail.note(entry(**{FIELD: "call"}))
    assert trail.drain(LONG_SECONDS)
    assert (trail.dropped, trail.error) == (3, "")


def test_where_no_thread_can_be_had_lines_are_dropped(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / NAME)
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        trail.note(entry(**{FIELD: "call"}))
    assert (trail.dropped, trail.error) == (1, "there is no thread to be had")
    trail.note(entry("later", **{FIELD: "call"}))
    assert trail.drain(LONG_SECONDS)
    assert said(tmp_path / NAME) == ["later"]


def test_it_never_takes_more_than_four_files(tmp_path: Path) -> None:
    path = tmp_path / NAME
    for _ in range(6):
        path.write_bytes(b"x" * (MAX_BYTES - 10))
        append_entry(path, entry())
    assert sorted(found.name for found in tmp_path.iterdir()) == [NAME, *(f"{NAME}.{number}" for number in (1, 2, 3))]
    assert said(path) == ["called"]


def test_what_root_writes_is_the_nodes(tmp_path: Path) -> None:
    with mock.patch.object(os, "geteuid", return_value=0), mock.patch.object(os, "fchown") as fchown:
        append_entry(tmp_path / NAME, entry(), (12, 13))
    assert fchown.call_args.args[1:] == (12, 13)
    with mock.patch.object(os, "geteuid", return_value=5), mock.patch.object(os, "fchown") as fchown:
        append_entry(tmp_path / NAME, entry(), (12, 13))
    assert not fchown.called


def test_who_an_operator_is() -> None:
    assert operator_fields(0, {"SUDO_UID": "1000"}) == {"uid": 0, "sudo_uid": 1000}
    assert operator_fields(0, {"SUDO_UID": "x"}) == {"uid": 0}
    assert operator_fields(1000, {"SUDO_UID": "0"}) == {"uid": 1000}
