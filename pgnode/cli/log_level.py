"""``pgnode log-level``: which lines of the node's own are printed, shown or changed while it runs."""

from __future__ import annotations

import datetime
from typing import Any

from pgnode.cli.asking import ask_node, seconds_from
from pgnode.cli.operator_audit import note
from pgnode.cli.output import say
from pgnode.cli.screen import Screen
from pgnode.cli.target import Named, find_target
from pgnode.errors import ArgumentError
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.client import ASK_SECONDS


def show_level(
    named: Named,
    level: str | None = None,
    *,
    duration: str | None = None,
    json_wanted: bool = False,
    ask_seconds: float = ASK_SECONDS,
) -> int:
    """Print the level that is in force, and put another one in force before.

    Args:
        named: What the operator said about which node is meant.
        level: The other one; None for none.
        duration: For how long, such as 10m; None: until the next start.
        json_wanted: Print JSON.
        ask_seconds: Seconds that the supervisor has to answer.

    Returns:
        The exit code.

    Raises:
        OperatorError: The node does not run, does not answer, or does not know the level; or a time is given and no level.
    """
    if level is None and duration is not None:
        raise ArgumentError(f"--for {duration} is for another level: name it, such as pgnode log-level debug --for 10m")
    seconds = seconds_from("--for", duration)
    target = find_target(named)
    if target.why and not json_wanted:
        say(target.why)
    values: dict[str, Any] = {} if level is None else {"level": level.lower(), "seconds": seconds}
    answer = ask_node(target, messages.LOG_LEVEL, values, seconds=ask_seconds)
    if level is not None:
        note(target.settings, "settings", "level of the log changed", {"level": level.lower()})
    if json_wanted:
        Screen().json(answer)
    else:
        say(sentence(answer))
    return 0


def sentence(answer: dict[str, Any]) -> str:
    """Return the supervisor's answer in words."""
    level, usual, until = answer.get("level"), answer.get("usual"), answer.get("until")
    if level == usual:
        return f"{level}, as the settings say"
    if isinstance(until, (int, float)):
        at = datetime.datetime.fromtimestamp(until).astimezone()
        return f"{level} until {at:%Y-%m-%d %H:%M:%S}, then {usual} again"
    return f"{level} until the supervisor starts anew, then {usual} again"
