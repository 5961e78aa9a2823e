"""Claims are printed with their mark, and counted."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pgnode.demo.report import Report


@pytest.mark.parametrize("held", [True, False])
def test_the_exit_status_says_whether_every_check_held(held: bool) -> None:
    out = io.StringIO()
    report = Report(Console(file=out, width=200))
    report.step("A step")
    report.check(True, "one [holds]")
    report.check(held, "the other")
    report.lines(["a line of the log"])
    assert report.end() == (0 if held else 1)
    text = out.getvalue()
    assert "✓ one [holds]" in text
    assert ("✓ the other" if held else "✗ the other") in text
    assert "  a line of the log" in text
    assert ("All 2 checks held" if held else "1 of 2 checks failed") in text
