"""``pgnode users NAME --sessions`` and ``--disconnect``: a user's open connections, and their end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pgnode.cli.asking import ask_node
from pgnode.cli.operator_audit import note
from pgnode.cli.output import say
from pgnode.cli.target import Named, find_target
from pgnode.cli.texts import count
from pgnode.os_support.log_text import printable
from pgnode.supervisor.control import messages

#: Seconds that the supervisor may take: it looks at every connection of the core.
ORDER_SECONDS: Final = 30.0


def show_sessions(named: Named, user: str, *, disconnect: bool, json_wanted: bool = False) -> int:
    """Show a user's open connections, or end them.

    Args:
        named: What the operator said about which node is meant.
        user: The user, by e-mail.
        disconnect: End them.
        json_wanted: Print JSON.

    Returns:
        The exit code, 0.

    Raises:
        OperatorError: The supervisor says why not, or does not answer.
    """
    target = find_target(named)
    if target.why and not json_wanted:
        say(target.why)
    do = "disconnect" if disconnect else "look"
    answer = ask_node(target, messages.SESSIONS, {"user": user, "do": do}, seconds=ORDER_SECONDS)
    if disconnect:
        note(target.settings, "node", "a user's connections were ended", {"user": user})
    if json_wanted:
        say(json.dumps(answer))
        return 0
    for line in ended_lines(answer) if disconnect else session_lines(answer):
        say(line)
    return 0


def ended_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was ended."""
    yield (
        f"{count(int(answer.get('ended') or 0), 'connection')} ended; what no line of the log tells ends within a second. "
        "The user may come back: remove or disable it in the panel to keep it away"
    )
    yield from left_lines(answer.get("left"))


def session_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of connections."""
    sessions: Sequence[Mapping[str, Any]] = answer.get("sessions") or ()
    if not sessions:
        yield "no open connection over TCP that is known to be this user's"
    rows = [("from", "inbound", "since", "")] if sessions else []
    for one in sessions:
        address = f"[{one['address']}]" if ":" in one["address"] else one["address"]
        since = one.get("since")
        began = "not known" if since is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
        shared = "" if not one.get("shared") else "perhaps another user's" if since is None else "with other users"
        rows.append((f"{address}:{one['port']}", printable(str(one["inbound"])), began, shared))
    widths = [max(len(row[column]) for row in rows) for column in range(4)] if rows else []
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield from left_lines(answer.get("left"))


def left_lines(left: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield why connections of the user were left the last time that they should have ended."""
    if left is not None:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(left["at"]))
        for reason in left["reasons"]:
            yield f"since {at} a connection was left that should have ended: {printable(str(reason))}"
