"""What this process takes."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from pgnode.os_support.own_usage import cpu_seconds, memory_bytes


def test_memory_is_what_others_see() -> None:
    seen = psutil.Process().memory_info().rss
    assert 0.5 * seen < memory_bytes() < 2 * seen


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert memory_bytes(tmp_path / "none") == 0
    odd = tmp_path / "odd"
    odd.write_text("1")
    assert memory_bytes(odd) == 0


def test_processor_time_rises() -> None:
    before = cpu_seconds()
    end = time.process_time() + 0.01
    while time.process_time() < end:
        pass
    assert cpu_seconds() >= before + 0.01
