"""Gunicorn's lines take the one form; files that an operator names stay as Gunicorn writes them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from gunicorn.config import Config

from pgnode.os_support.log_output import PROCESS
from pgnode.worker.gunicorn_log import GunicornLog
from tests.support.kept_logging import kept_logging


@pytest.fixture(autouse=True)
def _kept() -> Iterator[None]:
    log = logging.getLogger("gunicorn.error")
    before = list(log.handlers), log.propagate, log.level
    with kept_logging():
        yield
    for handler in log.handlers:
        handler.close()
    log.handlers[:], log.propagate = before[0], before[1]
    log.setLevel(before[2])


def test_a_reload_adds_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    PROCESS.take_form("json", journal=False)
    PROCESS.name_process("gunicorn")
    config = Config()
    log = GunicornLog(config)
    log.setup(config)
    log.warning("worker %d is gone", 3)
    log.info("booting")
    said, detail = map(json.loads, capsys.readouterr().err.splitlines())
    assert (said["level"], said["process"], said["message"]) == ("warning", "gunicorn", "worker 3 is gone")
    assert (detail["level"], detail["message"]) == ("debug", "booting"), "of Gunicorn's own doings"


def test_a_file_stays_gunicorns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config()
    log = GunicornLog(config)
    config.set("errorlog", str(tmp_path / "log"))
    log.setup(config)
    log.error("it broke")
    assert capsys.readouterr().err == ""
    assert "[ERROR] it broke" in (tmp_path / "log").read_text()
