"""``pgnode users``: desired, applied and rejected users.

Desired and failed users come from the node's store, also while the node is down; its supervisor is asked for whom the core does
not have as desired.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from pgnode.bus.operator_views import UserDrift
from pgnode.bus.state import WITH_CORE, State
from pgnode.cli.output import say
from pgnode.cli.stored import no_state, not_running
from pgnode.cli.target import Named, Target, find_target
from pgnode.store.reader import read_state, stored_at
from pgnode.store.rows import RejectedUser
from pgnode.store.state import StoredState
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.client import ASK_SECONDS, NotAnsweredError, ask
from pgnode.wire import service_pb2 as pb


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


_NOBODY = UserDrift(frozenset(), frozenset(), frozenset())


def lines(
    stored: ShownUsers, waiting: UserDrift | None, *, failed_only: bool = False, waiting_only: bool = False
) -> Iterator[str]:
    """Yield the report, line by line: a summary, then one user a line, sorted by e-mail.

    Args:
        stored: What the store and the node say.
        waiting: Whom the core does not have as desired; None where that is not known.
        failed_only: Leave out who was not refused; with ``waiting_only`` users of either kind are shown.
        waiting_only: Leave out whom the core has as desired.

    Yields:
        A line.
    """
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
    elif not with_core and waiting_only:
        yield "no core runs: nobody is applied"
    shown = waiting if with_core and waiting is not None else _NOBODY
    everybody = not failed_only and not waiting_only
    for key in sorted(stored.desired.keys() | stored.failed.keys() | shown.to_add | shown.to_remove):
        user, failure = stored.desired.get(key), stored.failed.get(key)
        waits = _waits(key, shown)
        if not (everybody or (failed_only and failure is not None) or (waiting_only and waits)):
            continue
        if failure is not None:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(failure.at_ms / 1000))
            kept = f"; as before in {', '.join(user.inbounds)}" if user is not None else ""
            yield f"{failure.email}  failed since {since}: {failure.cause}{kept}{f'; {waits}' if waits else ''}"
        elif user is not None:
            yield f"{user.email}  {', '.join(user.inbounds)}{f'; {waits}' if waits else ''}"
        else:
            yield f"{key}  {waits}"


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
    *,
    failed_only: bool = False,
    waiting_only: bool = False,
    ask_seconds: float = ASK_SECONDS,
) -> int:
    """Print what :func:`lines` says of a node.

    Args:
        named: What the operator said about which node is meant.
        failed_only: Leave out who was not refused.
        waiting_only: Leave out whom the core has as desired.
        ask_seconds: Seconds that the supervisor has to answer.

    Returns:
        The exit code.

    Raises:
        OperatorError: There is no store, or it cannot be read.
    """
    target = find_target(named)
    if target.why:
        say(target.why)
    shown, waiting = _read(target, ask_seconds)
    for line in lines(shown, waiting, failed_only=failed_only, waiting_only=waiting_only):
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
