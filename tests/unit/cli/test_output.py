"""What commands print holds nothing that a terminal obeys."""

from __future__ import annotations

import pytest

from pgnode.cli.output import say


def test_lines_are_safe_and_go_where_they_belong(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\nc\u202e")
    say("wrong\r", error=True)
    out, err = capsys.readouterr()
    assert out == "a\\x1b[2Jb\nc\\u202e\n"
    assert err == "wrong\\r\n"
