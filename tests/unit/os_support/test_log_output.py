"""Where log lines go: text, JSON, the journal; and what is said by other ways than structlog."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import warnings
from pathlib import Path

import pytest

from pgnode.os_support.log_lines import Entry
from pgnode.os_support.log_output import (
    LogOutput,
    StandardHandler,
    entry_of,
    form_of,
    is_journal,
    take_standard_logging,
)


def _said(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_journal_is_what_its_variable_names(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as file:
        found = os.fstat(file.fileno())
        here = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(here, file.fileno())
        assert not is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}, file.fileno())
        assert not is_journal({}, file.fileno())
        assert not is_journal({"JOURNAL_STREAM": "9:x"}, file.fileno())
    assert not is_journal(here, 1_000_000)


def test_the_form_is_the_one_that_fits_where_nobody_names_one(tmp_path: Path) -> None:
    mark, in_container = tmp_path / "mark", {"container": "podman"}
    leader, terminal = os.openpty()
    with (tmp_path / "log").open("w") as file:
        found = os.fstat(file.fileno())
        journal = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert form_of("auto", in_container, file.fileno(), [mark]) == "json"
        assert form_of("auto", in_container, terminal, [mark]) == "text"
        assert form_of("auto", {**in_container, **journal}, file.fileno(), [mark]) == "text"
        assert form_of("auto", {}, file.fileno(), [mark]) == "text"
        assert form_of("text", in_container, file.fileno(), [mark]) == "text"
        assert form_of("json", {}, terminal, [mark]) == "json"
        mark.touch()
        assert form_of("auto", {}, file.fileno(), [mark]) == "json"
    for descriptor in (leader, terminal):
        os.close(descriptor)


def test_the_journal_gets_priorities_and_no_times() -> None:
    for form in ("text", "json"):
        stream = io.StringIO()
        output = LogOutput("supervisor", form, True, stream)
        output.write(output.entry("warning", "no room", {"free": 3}))
        line = stream.getvalue()
        assert line.startswith("<4>")
        if form == "text":
            assert line == f"<4>[warning] supervisor[{os.getpid()}]: no room free=3\n"
        else:
            assert json.loads(line.removeprefix("<4>"))["fields"] == {"free": 3}


def test_what_is_less_grave_than_wanted_is_left_out() -> None:
    out = io.StringIO()
    output = LogOutput("rest", out=out)
    output.show_from("warning")
    for level in ("debug", "info", "warning", "error"):
        output.write(output.entry(level, f"this is {level}", {}))
    assert [line.rpartition(" ")[2] for line in out.getvalue().splitlines()] == ["warning", "error"]


def test_it_writes_to_what_stderr_is_then(capsys: pytest.CaptureFixture[str]) -> None:
    output = LogOutput("a")
    output.name_process("b")
    output.take_form("json", journal=False)
    output.write(output.entry("info", "x", {}))
    assert json.loads(capsys.readouterr().err)["process"] == "b"


def test_an_event_becomes_an_entry_with_its_traceback_and_no_variables() -> None:
    output = LogOutput("a")
    try:
        secret = "hunter" + "2"
        raise KeyError(len(secret))
    except KeyError as caught:
        error = caught
        by_flag = entry_of(output, "error", {"event": "x", "exc_info": True})
    for found in (by_flag, entry_of(output, "error", {"event": "x", "exc_info": error, "level": "error"})):
        assert (found.message, found.fields) == ("x", {})
        assert found.traceback.endswith("KeyError: 7")
        assert "hunter2" not in found.traceback
    assert entry_of(output, "info", {"event": "x", "exc_info": True, "n": 1}).traceback == ""
    assert entry_of(output, "info", {"event": "x", "exc_info": False}).traceback == ""


def test_the_standard_librarys_logging_goes_the_same_way() -> None:
    stream, also = io.StringIO(), list[Entry]()
    output = LogOutput("rest", "json", False, stream)
    take_standard_logging(output)
    take_standard_logging(output, also.append)
    logging.getLogger("asyncio").warning("took %s", "2\ns")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    try:
        raise OSError("full")
    except OSError:
        logging.getLogger("x").exception("failed")
    logging.getLogger("x").info("not said")
    # Not by a logger: pytest listens there, too.
    broken_record = logging.makeLogRecord({"name": "x", "msg": "%d", "args": ("no number",), "levelname": "ERROR"})
    StandardHandler(output).emit(broken_record)
    first, second, third, broken = _said(stream)
    assert (first["level"], first["message"]) == ("warning", "took 2\\ns")
    assert "UserWarning: old" in str(second["message"])
    assert str(third["traceback"]).endswith("OSError: full")
    assert broken["message"] == "a log line could not be written"
    assert "no number" not in json.dumps(broken)
    assert [entry.level for entry in also] == ["warning", "warning", "error"]


def test_errors_that_nobody_expected_go_the_same_way() -> None:
    stream = io.StringIO()
    take_standard_logging(LogOutput("grpc", "json", False, stream))
    try:
        raise RuntimeError("of the process")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)

    def fail(error: BaseException) -> None:
        raise error

    for failure in (RuntimeError("of a thread"), SystemExit(1)):
        thread = threading.Thread(target=fail, args=(failure,))
        thread.start()
        thread.join(30)

    class Bad:
        def __del__(self) -> None:
            raise RuntimeError("of an object")

    Bad().__del__  # noqa: B018 - made, and collected at once
    said = _said(stream)
    assert [(one["level"], one["message"]) for one in said] == [
        ("critical", "an error that nobody expected ended this process"),
        ("critical", "an error that nobody expected ended a thread"),
        ("critical", "an error that nobody expected was left behind"),
    ]
    assert [str(one["traceback"]).rsplit(" ", 1)[-1] for one in said] == ["process", "thread", "object"]
