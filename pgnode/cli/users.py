"""``pgnode users``: desired, applied and rejected users, and those with most traffic.

Desired and rejected users come from the node's store, also while the node is down; its supervisor is asked for whom the core does
not have as desired.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pgnode.bus.operator_views import UserDrift
from pgnode.bus.state import WITH_CORE, State
from pgnode.cli.output import say
from pgnode.cli.sessions import left_lines
from pgnode.cli.stored import no_state, not_running
from pgnode.cli.target import Named, Target, find_target
from pgnode.cli.texts import size
from pgnode.cli.traffic import Flow, LiveTraffic, flows_of
from pgnode.cli.verdict import exit_code_of, word_of
from pgnode.errors import OperatorError
from pgnode.os_support.log_text import printable
from pgnode.store.reader import read_state, stored_at
from pgnode.store.rows import RejectedUser
from pgnode.store.state import StoredState
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.client import ASK_SECONDS, NotAnsweredError, ask
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import email_key

#: Seconds that the supervisor has to store what it has counted, and to answer.
TRAFFIC_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class ShownUsers:
    """What is shown beside :class:`~pgnode.bus.operator_views.UserDrift`; e-mails in lower case are the keys."""

    #: The state of the node; None where it does not answer.
    state: State | None
    desired: dict[str, pb.User]
    failed: dict[str, RejectedUser]
    #: When the store was written last, Unix seconds.
    stored_at: float = 0.0
    panel_away: bool = False
    #: The supervisor; None where none runs.
    pid: int | None = None
    #: What users moved since the state folder was made, and who is online; None where nobody wants to know.
    flows: Mapping[str, Flow] | None = None

    @classmethod
    def of(
        cls,
        stored: StoredState,
        state: State | None,
        stored_at: float,
        *,
        panel_away: bool = False,
        pid: int | None = None,
        online: Mapping[str, int] | None = None,
    ) -> ShownUsers:
        """Make it from what the store and the supervisor say; without ``online``, which may be empty, traffic is left out."""
        desired = {key: pb.User.FromString(raw) for key, raw in stored.users.items()}
        flows = None
        if online is not None:
            flows = {email_key(flow.name): flow for flow in flows_of(stored.counters, online)["user"]}
        return cls(state, desired, stored.rejected, stored_at, panel_away, pid, flows)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which users are shown."""

    #: Leave out who was not refused; with ``waiting_only`` users of either kind are shown.
    failed_only: bool = False
    #: Leave out whom the core has as desired.
    waiting_only: bool = False
    #: The one user that is wanted, by e-mail; None for all.
    name: str | None = None
    #: Only so many, those with most traffic; None for all, by e-mail.
    top: int | None = None

    @property
    def with_traffic(self) -> bool:
        """Whether it is shown what they moved."""
        return self.name is not None or self.top is not None


#: Everybody.
ALL = Wanted()

#: Of a user who has moved nothing yet.
_NOTHING = Flow("")

_NOBODY = UserDrift(frozenset(), frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class Entry:
    """One user, as it is shown."""

    email: str
    #: Tags of the inbounds where the user is desired; none for one who is not.
    inbounds: tuple[str, ...]
    #: Why the user was refused last, and since when, Unix seconds; None for one who was not.
    failed: str | None = None
    failed_since: float | None = None
    #: What the core has otherwise; "" for nothing, or where that is not known.
    waits: str = ""
    #: Bytes since the state folder was made, and addresses that the user is online from; None where nobody asked.
    uplink_bytes: int | None = None
    downlink_bytes: int | None = None
    online: int | None = None

    @property
    def total_bytes(self) -> int:
        """Both ways; 0 where nobody asked."""
        return (self.uplink_bytes or 0) + (self.downlink_bytes or 0)

    @property
    def line(self) -> str:
        """The user on one line."""
        waits = f"; {self.waits}" if self.waits else ""
        if self.failed is not None:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.failed_since))
            kept = f"; as before in {', '.join(self.inbounds)}" if self.inbounds else ""
            return f"{self.email}  rejected since {since}: {self.failed}{kept}{waits}"
        if self.inbounds:
            return f"{self.email}  {', '.join(self.inbounds)}{waits}"
        return f"{self.email}  {self.waits}"


def entries(stored: ShownUsers, waiting: UserDrift | None, wanted: Wanted = ALL) -> Iterator[Entry]:
    """Yield users, sorted by e-mail, or those with most traffic, first the one with most of it.

    Args:
        stored: What the store and the node say.
        waiting: Whom the core does not have as desired; None where that is not known.
        wanted: Which users are shown.

    Yields:
        Each of them.
    """
    found = _entries(stored, waiting, wanted)
    if wanted.top is None:
        yield from found
    else:
        yield from heapq.nsmallest(wanted.top, found, key=lambda entry: (-entry.total_bytes, email_key(entry.email)))


def _entries(stored: ShownUsers, waiting: UserDrift | None, wanted: Wanted) -> Iterator[Entry]:
    shown = waiting if stored.state in WITH_CORE and waiting is not None else _NOBODY
    everybody = not wanted.failed_only and not wanted.waiting_only
    keys = stored.desired.keys() | stored.failed.keys() | shown.to_add | shown.to_remove
    for key in sorted(keys if wanted.name is None else keys & {email_key(wanted.name)}):
        user, failure = stored.desired.get(key), stored.failed.get(key)
        waits = _waits(key, shown)
        if not (everybody or (wanted.failed_only and failure is not None) or (wanted.waiting_only and waits)):
            continue
        inbounds = tuple(user.inbounds) if user is not None else ()
        moved: tuple[int, int, int] | tuple[None, None, None] = (None, None, None)
        if stored.flows is not None:
            flow = stored.flows.get(key, _NOTHING)
            moved = (flow.uplink_bytes, flow.downlink_bytes, flow.online)
        if failure is not None:
            yield Entry(failure.email, inbounds, failure.cause, failure.at_ms / 1000, waits, *moved)
        else:
            yield Entry(user.email if user is not None else key, inbounds, None, None, waits, *moved)


def lines(stored: ShownUsers, waiting: UserDrift | None, wanted: Wanted = ALL) -> Iterator[str]:
    """Yield the report, line by line: a summary, then what :func:`entries` yields."""
    with_core = stored.state in WITH_CORE
    if stored.state is None:
        yield f"{len(stored.desired):,} desired, {len(stored.failed):,} rejected; {not_running(stored.stored_at, stored.pid)}"
    else:
        yield (
            f"{len(stored.desired):,} desired, {_applied(stored, with_core, waiting)}, {len(stored.failed):,} rejected; "
            f"node {word_of(stored.state)}{', panel away' if stored.panel_away else ''}"
        )
    if with_core and waiting is None:
        yield "the supervisor does not answer: who is not applied is not known"
    elif not with_core and wanted.waiting_only:
        yield "no core runs: nobody is applied"
    shown = entries(stored, waiting, wanted)
    if wanted.top is not None:
        yield from table(list(shown))
        return
    for entry in shown:
        yield entry.line
        if wanted.with_traffic and entry.uplink_bytes is not None:
            online = f"; online from {entry.online} address{'es' if entry.online != 1 else ''}" if entry.online else ""
            yield f"  down {size(entry.downlink_bytes or 0)}, up {size(entry.uplink_bytes)}{online}"


def table(shown: Sequence[Entry]) -> Iterator[str]:
    """Yield the lines of a table of users and what they moved, its columns as wide as they have to be."""
    rows: list[tuple[str, ...]] = [("user", "down", "up", "total", "addresses")]
    for entry in shown:
        moved = (entry.downlink_bytes or 0, entry.uplink_bytes or 0, entry.total_bytes)
        rows.append((printable(entry.email), *map(size, moved), str(entry.online or "")))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for name, *figures in rows:
        cells = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def as_json(stored: ShownUsers, waiting: UserDrift | None, shown: Iterable[Entry]) -> str:
    """Return the report for programs.

    Args:
        stored: What the store and the node say.
        waiting: Whom the core does not have as desired; None where that is not known.
        shown: The users to show.

    Returns:
        One JSON object; ``state`` is null where the node does not answer, ``not_applied`` where that is not known.
    """
    known = waiting is not None and stored.state in WITH_CORE
    report = {
        "state": None if stored.state is None else str(stored.state),
        "panel_away": stored.panel_away,
        "stored_at": stored.stored_at,
        "desired": len(stored.desired),
        "failed": len(stored.failed),
        "not_applied": len(stored.desired.keys() & waiting.to_add) if known and waiting is not None else None,
        "to_be_removed": len(waiting.to_remove) if known and waiting is not None else None,
        "users": [asdict(entry) for entry in shown],
    }
    return json.dumps(report)


def _applied(stored: ShownUsers, with_core: bool, waiting: UserDrift | None) -> str:
    if not with_core:
        return "0 applied"
    if waiting is None:
        return "applied not known"
    to_add = len(stored.desired.keys() & waiting.to_add)
    parts = [f"{len(stored.desired) - to_add:,} applied"]
    if to_add:
        parts.append(f"{to_add:,} not yet")
    if waiting.to_remove:
        parts.append(f"{len(waiting.to_remove):,} to be removed")
    return ", ".join(parts)


def _waits(key: str, waiting: UserDrift) -> str:
    """Say what of this user is not as desired; "" when nothing."""
    if key not in waiting.to_add and key not in waiting.to_remove:
        return ""
    what = "not applied yet" if key in waiting.to_add else "removed, still active in the core"
    return f"{what}: the core did not answer" if key in waiting.uncertain else what


def show_users(
    named: Named = Named(),  # noqa: B008 - frozen
    wanted: Wanted = ALL,
    *,
    json_wanted: bool = False,
    ask_seconds: float = ASK_SECONDS,
) -> int:
    """Print what :func:`lines` says of a node.

    Args:
        named: What the operator said about which node is meant.
        wanted: Which users are shown.
        json_wanted: As one JSON object.
        ask_seconds: Seconds that the supervisor has to answer.

    Returns:
        The exit code: 0; 3 where the node does not run, 4 where it does not answer.

    Raises:
        OperatorError: There is no store, or it cannot be read; or no user has that name.
    """
    target = find_target(named)
    if target.why and not json_wanted:
        say(target.why)
    stored, waiting = _read(target, ask_seconds, with_traffic=wanted.with_traffic)
    left = list(left_lines(_left(target, wanted.name, ask_seconds))) if wanted.name is not None else []
    if wanted.name is not None and not left and next(entries(stored, waiting, Wanted(name=wanted.name)), None) is None:
        raise OperatorError(f"no user {wanted.name} is desired, rejected or in the core: `pgnode users` shows all")
    if json_wanted:
        found = entries(stored, waiting, wanted)
        # Escaped by JSON itself.
        say(as_json(stored, waiting, found))
    else:
        for line in (*lines(stored, waiting, wanted), *left):
            say(line)
    return exit_code_of(stored.state, stored.pid)


def _left(target: Target, name: str, ask_seconds: float) -> Mapping[str, Any] | None:
    """Ask which connections of a user were left that should have ended; None where nobody knows of any."""
    if target.pid is None:
        return None
    try:
        answer = ask(target.settings.run_dir, messages.SESSIONS, {"user": name, "do": "left"}, seconds=ask_seconds)
        found: Mapping[str, Any] | None = answer.get("left")
    except NotAnsweredError:
        # Also where it is of another version.
        return None
    return found


def _read(target: Target, ask_seconds: float, *, with_traffic: bool) -> tuple[ShownUsers, UserDrift | None]:
    settings = target.settings
    state: State | None = None
    away, waiting = False, None
    online: Mapping[str, int] | None = {} if with_traffic else None
    if target.pid is not None:
        try:
            said = ask(settings.run_dir, messages.USERS, seconds=ask_seconds)
            state, away = State(said["state"]), bool(said["panel_away"])
            waiting = UserDrift.decode(said)
            if with_traffic:
                # It stores what it has counted so far before it answers.
                online = LiveTraffic.decode(ask(settings.run_dir, messages.TRAFFIC, seconds=TRAFFIC_SECONDS)).online
        except (NotAnsweredError, KeyError, ValueError, TypeError, AttributeError):
            # Also where it is of another version.
            state = None
    # After the question, so that what was desired meanwhile is in it.
    stored = read_state(settings.store_path)
    if stored is None:
        raise no_state(settings, target.pid)
    at = stored_at(settings.store_path)
    return ShownUsers.of(stored, state, at, panel_away=away, pid=target.pid, online=online), waiting
