"""structlog's events become entries, from the level on that is wanted."""

from __future__ import annotations

import io
import json

import pytest
import structlog

from pgnode.os_support import log_setup
from pgnode.os_support.log_lines import Entry
from pgnode.os_support.log_output import LogOutput


def test_the_audit_trail_has_what_belongs_there_whatever_is_logged() -> None:
    stream, audited = io.StringIO(), list[Entry]()
    log_setup.set_up(
        LogOutput("rest", "json", False, stream), shows=lambda level: level == "error", audited=audited.append
    )
    log = structlog.get_logger("there")
    log.info("called", audit="call")
    log.info("not said")
    log.error("said")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["said"]
    assert [entry.message for entry in audited] == ["called", "said"], "the trail takes what has the field"


@pytest.mark.parametrize("debug", [True, False])
def test_events_are_written_and_told(debug: bool) -> None:
    stream, also = io.StringIO(), list[Entry]()
    output = LogOutput("rest", "json", False, stream)
    log_setup.set_up(output, shows=lambda level: debug or level != "debug", also=also.append)
    log = structlog.get_logger("here")
    log.debug("detail", value="a\x1b[2J")
    log.info("it works", count=3)
    try:
        raise OSError("full")
    except OSError:
        log.exception("failed")
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [one["level"] for one in said] == [*(["debug"] if debug else []), "info", "error"]
    assert said[-2]["fields"] == {"count": 3}
    assert said[-1]["traceback"].endswith("OSError: full")
    assert [entry.message for entry in also] == [one["message"] for one in said]
    assert "\x1b" not in stream.getvalue()
    if debug:
        assert said[0]["fields"] == {"value": "a\\x1b[2J"}
