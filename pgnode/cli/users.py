"""``pgnode users``: desired, applied and rejected users.

Desired and failed users come from the node's store, also while the node is down; its supervisor is asked for whom the core does
not have as desired.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from pgnode.bus.operator_views import UserDrift
from pgnode.bus.state import WITH_CORE, State
from pgnode.cli.output import say
from pgnode.cli.stored import no_state, not_running
from pgnode.cli.target import Named, Target, find_target
from pgnode.errors import OperatorError
from pgnode.store.reader import read_state, stored_at
from pgnode.store.rows import RejectedUser
from pgnode.store.state import StoredState
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.client import ASK_SECONDS, NotAnsweredError, ask
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import email_key


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

    @classmethod
    def of(
        cls,
        stored: StoredState,
        state: State | None,
        stored_at: float,
        *,
        panel_away: bool = False,
        pid: int | None = None,
    ) -> ShownUsers:
        """Make it from what the store and the supervisor say."""
        desired = {key: pb.User.FromString(raw) for key, raw in stored.users.items()}
        return cls(state, desired, stored.rejected, stored_at, panel_away, pid)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which users are shown."""

    #: Leave out who was not refused; with ``waiting_only`` users of either kind are shown.
    failed_only: bool = False
    #: Leave out whom the core has as desired.
    waiting_only: bool = False
    #: The one user that is wanted, by e-mail; None for all.
    name: str | None = None


#: Everybody.
ALL = Wanted()

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

    @property
    def line(self) -> str:
        """The user on one line."""
        waits = f"; {self.waits}" if self.waits else ""
        if self.failed is not None:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.failed_since))
            kept = f"; as before in {', '.join(self.inbounds)}" if self.inbounds else ""
            return f"{self.email}  failed since {since}: {self.failed}{kept}{waits}"
        if self.inbounds:
            return f"{self.email}  {', '.join(self.inbounds)}{waits}"
        return f"{self.email}  {self.waits}"


def entries(stored: ShownUsers, waiting: UserDrift | None, wanted: Wanted = ALL) -> Iterator[Entry]:
    """Yield users, sorted by e-mail; ``waiting`` is None where nobody knows whom the core does not have as desired."""
    shown = waiting if stored.state in WITH_CORE and waiting is not None else _NOBODY
    everybody = not wanted.failed_only and not wanted.waiting_only
    keys = stored.desired.keys() | stored.failed.keys() | shown.to_add | shown.to_remove
    for key in sorted(keys if wanted.name is None else keys & {email_key(wanted.name)}):
        user, failure = stored.desired.get(key), stored.failed.get(key)
        waits = _waits(key, shown)
        if not (everybody or (wanted.failed_only and failure is not None) or (wanted.waiting_only and waits)):
            continue
        inbounds = tuple(user.inbounds) if user is not None else ()
        if failure is not None:
            yield Entry(failure.email, inbounds, failure.cause, failure.at_ms / 1000, waits)
        else:
            yield Entry(user.email if user is not None else key, inbounds, waits=waits)


def lines(stored: ShownUsers, waiting: UserDrift | None, wanted: Wanted = ALL) -> Iterator[str]:
    """Yield the report, line by line: a summary, then what :func:`entries` yields."""
    with_core = stored.state in WITH_CORE
    if stored.state is None:
        yield f"{len(stored.desired)} desired, {len(stored.failed)} failed; {not_running(stored.stored_at, stored.pid)}"
    else:
        yield (
            f"{len(stored.desired)} desired, {_applied(stored, with_core, waiting)}, {len(stored.failed)} failed; "
            f"node {stored.state}{', panel away' if stored.panel_away else ''}"
        )
    if with_core and waiting is None:
        yield "the supervisor does not answer: who is not applied is not known"
    elif not with_core and wanted.waiting_only:
        yield "no core runs: nobody is applied"
    for entry in entries(stored, waiting, wanted):
        yield entry.line


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
    parts = [f"{len(stored.desired) - to_add} applied"]
    if to_add:
        parts.append(f"{to_add} not yet")
    if waiting.to_remove:
        parts.append(f"{len(waiting.to_remove)} to be removed")
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
        The exit code.

    Raises:
        OperatorError: There is no store, or it cannot be read; or no user has that name.
    """
    target = find_target(named)
    if target.why and not json_wanted:
        say(target.why)
    stored, waiting = _read(target, ask_seconds)
    if wanted.name is not None and next(entries(stored, waiting, Wanted(name=wanted.name)), None) is None:
        raise OperatorError(f"no user {wanted.name} is desired, refused or in the core: `pgnode users` shows all")
    if json_wanted:
        found = entries(stored, waiting, wanted)
        # Escaped by JSON itself.
        say(as_json(stored, waiting, found))
        return 0
    for line in lines(stored, waiting, wanted):
        say(line)
    return 0


def _read(target: Target, ask_seconds: float) -> tuple[ShownUsers, UserDrift | None]:
    settings = target.settings
    state: State | None = None
    away, waiting = False, None
    if target.pid is not None:
        try:
            said = ask(settings.run_dir, messages.USERS, seconds=ask_seconds)
            state, away = State(said["state"]), bool(said["panel_away"])
            waiting = UserDrift.decode(said)
        except (NotAnsweredError, KeyError, ValueError, TypeError):
            # Also where it is of another version.
            state = None
    # After the question, so that what was desired meanwhile is in it.
    stored = read_state(settings.store_path)
    if stored is None:
        raise no_state(settings)
    return ShownUsers.of(stored, state, stored_at(settings.store_path), panel_away=away, pid=target.pid), waiting
