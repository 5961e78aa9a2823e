"""``pgnode status``: how the node is, on one screen; also while it is down, or hangs."""

from __future__ import annotations

from pgnode.cli.facts import find_facts
from pgnode.cli.screen import Screen
from pgnode.cli.status_view import as_json, head, rows
from pgnode.cli.target import Named, find_target
from pgnode.cli.verdict import verdict
from pgnode.supervisor.control.client import ASK_SECONDS


def show_status(named: Named, *, json_wanted: bool = False, ask_seconds: float = ASK_SECONDS) -> int:
    """Print how the node is.

    Args:
        named: What the operator said about which node is meant.
        json_wanted: Print JSON.
        ask_seconds: Seconds that its supervisor has to answer.

    Returns:
        The exit code: 0 well, 3 not running, 4 running and not well.

    Raises:
        OperatorError: It cannot be told which node is meant, or it may not be looked at.
    """
    facts = find_facts(find_target(named), ask_seconds=ask_seconds)
    judged, screen = verdict(facts), Screen()
    if json_wanted:
        screen.json(as_json(facts, judged))
    else:
        screen.head(*head(facts, judged), judged.tone)
        screen.rows(rows(facts, judged))
    return judged.exit_code
