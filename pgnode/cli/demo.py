"""``pgnode demo``: a private node, real users, real traffic."""

from __future__ import annotations

from rich.console import Console

from pgnode.cli.screen import Screen
from pgnode.demo import show
from pgnode.demo.report import Report


def run_demo(*, json_wanted: bool = False) -> int:
    """Show that it works without a panel.

    Args:
        json_wanted: Print what held as JSON, at the end.

    Returns:
        The exit code: 0 where every check held.
    """
    report = Report(Console(highlight=False, quiet=json_wanted))
    code = show.run_demo(report)
    if json_wanted:
        Screen().json(report.as_json())
    return code
