"""A worker prints JSON to the supervisor, and text or JSON where it was started by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from pgnode.os_support.log_lines import read_line
from pgnode.os_support.log_output import LINES_VARIABLE, PROCESS
from pgnode.worker.logging import name_process
from tests.support.kept_logging import kept_logging

_PROGRAM = """
import structlog
from pgnode.worker.logging import set_up_logging
set_up_logging("grpc")
log = structlog.get_logger("x")
log.warning("commands not sent", count=3)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("worker cannot start")
"""


def _lines(**environment: str) -> list[str]:
    found = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **environment},
    )
    assert found.stdout == ""
    assert "\x1b" not in found.stderr
    return found.stderr.splitlines()


def test_one_line_an_event_on_stderr_without_colours() -> None:
    first, second, *trace = _lines()
    assert first.partition(" [")[2].startswith("warning] grpc[")
    assert first.endswith("]: commands not sent count=3")
    assert second.endswith("]: worker cannot start")
    assert trace[-1].startswith("ZeroDivisionError")


def test_the_supervisor_reads_json_whatever_is_wanted_at_the_end() -> None:
    for environment in ({LINES_VARIABLE: "json", "LOG_FORMAT": "text"}, {"LOG_FORMAT": "json"}):
        first, second = _lines(**environment)
        assert json.loads(first)["fields"] == {"count": 3}
        read = read_line(second, "", 0, 0.0)
        assert (read.process, read.level, read.message) == ("grpc", "error", "worker cannot start")
        assert read.traceback.startswith("Traceback (most recent call last):\n")
        assert read.traceback.endswith("\nZeroDivisionError: division by zero")


def test_one_that_was_started_by_hand_obeys_the_environment() -> None:
    (line,) = _lines(LOG_FORMAT="auto", LOG_LEVEL="error", container="podman")[:1]
    assert (json.loads(line)["level"], json.loads(line)["message"]) == ("error", "worker cannot start")
    assert len(_lines(LOG_LEVEL="warning")) > 2
    assert len(_lines(LOG_LEVEL="error", **{LINES_VARIABLE: "json"})) == 2, "the supervisor chooses"


def test_a_process_that_was_forked_has_a_name_of_its_own() -> None:
    with kept_logging():
        name_process("rest")
        assert PROCESS.process == "rest"
