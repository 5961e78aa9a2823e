"""Levels of lines, whoever printed them."""

from __future__ import annotations

import pytest

from pgnode.os_support.log_levels import LEVELS, known_level, level_of_line, rank


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026/11/29 12:00:00 [warning] no room", "warning"),
        ("2026/11/29 12:00:00.123456 [Debug] [123] proxy/vless: x", "debug"),
        ("[2026-11-29 12:00:00 +0000] [10633] [INFO] Booting worker", "info"),
        ("[2026-11-29 12:00:00 +0000] [10633] [CRITICAL] WORKER TIMEOUT", "error"),
        ("2026/11/29 12:00:00.1 from 192.0.2.1:5 accepted tcp:x:443 [VLESS -> direct] email: a@[error]", "info"),
        ("nothing of the kind", "info"),
        ("", "info"),
    ],
)
def test_a_line_says_its_level(line: str, level: str) -> None:
    assert level_of_line(line) == level


def test_levels_have_an_order() -> None:
    assert [rank(level) for level in LEVELS] == [0, 1, 2, 3]
    assert (rank("CRITICAL"), rank("warn"), rank("loud")) == (3, 2, 1)
    assert known_level("Fatal") == "error"
