"""A worker's log lines are plain: the supervisor passes them on as they are."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import structlog
from pgnode.worker.logging import set_up_logging
set_up_logging()
log = structlog.get_logger("x")
log.warning("commands not sent", count=3)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("worker cannot start")
"""


def test_one_line_an_event_on_stderr_without_colours() -> None:
    found = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    assert found.stdout == ""
    assert "\x1b" not in found.stderr
    first, second, *trace = found.stderr.splitlines()
    assert first.endswith("[warning] commands not sent count=3")
    assert second.endswith("[error] worker cannot start")
    assert trace[-1].startswith("ZeroDivisionError")
