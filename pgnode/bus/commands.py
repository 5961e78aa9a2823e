"""Commands of the workers to the supervisor, and its replies: what they hold and how they look in a stream.

An entry of the command stream holds one or more commands of one worker, in their order: the field ``w`` names the worker,
whose replies stream gets the answers (its name tells protocols of the bus apart, :mod:`pgnode.bus.protocol`); every other field
is a command, under its id. Its value is ``kind budget body``, separated by single spaces. ``budget`` is in milliseconds how long
the caller waits, counted from the entry's own id, which is Redis's clock (hosts disagree about the time). ``body`` are raw
message bytes; where a ``*`` follows the budget, they are under a key of their own. Only commands that are done together anyway
share an entry (:data:`GATHERED_KINDS`): it is acknowledged as a whole.

An entry of a replies stream holds one or more replies, each under the id of its command: ``code body``, where ``code`` is
"" for done, else an ERROR_CODE of pgnode.errors, and ``body`` message bytes, or the text of the error. A ``code`` of ``=``
and a number is done as well, with a body that is on loan: 0 with the body in the reply, else the number of parts that the body
has to be fetched in (the keys ``loan:<id>:0`` and so on).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pgnode.bus.protocol import worker_field
from pgnode.bus.stream_ids import added_at_ms
from pgnode.errors import NodeError, from_code


class Kind(enum.StrEnum):
    """What a command asks for; in brackets its body and the body of its reply."""

    START = "start"  # [Backend -> BaseInfoResponse]
    STOP = "stop"  # [Empty -> Empty]
    SYNC_USER = "sync_user"  # [User -> Empty]
    SYNC_USERS = "sync_users"  # [Users -> Empty], the set becomes exactly this
    SYNC_CHUNKED = "sync_chunked"  # [Users -> Empty], a delta: the listed ones only
    TAKE_STATS = "take_stats"  # [StatRequest with reset -> StatResponse], on loan under the command's id
    SETTLE = "settle"  # [:func:`settlement` -> nothing], whether what a command took has reached its caller
    # Maintenance jobs: JSON bodies, and JSON with "detail" in their replies.
    CORE_UPDATE = "core_update"  # {"core_version": "latest" or "26.10.10"}
    GEOFILES = "geofiles"  # {"region": one of pgnode.wire.maintenance.REGIONS}
    HARD_RESET = "hard_reset"
    UPDATE = "update"
    NEW_CORE = "new_core"
    # Routing and latency.
    ADD_RULE = "add_rule"  # [AddRoutingRuleRequest -> Empty]
    REMOVE_RULE = "remove_rule"  # [RemoveRoutingRuleRequest -> Empty]
    OVERRIDE_BALANCER = "override_balancer"  # [OverrideBalancerTargetRequest -> Empty]
    LIST_RULES = "list_rules"  # [Empty -> RoutingRulesResponse]
    BALANCER_INFO = "balancer_info"  # [BalancerInfoRequest -> BalancerInfoResponse]
    TEST_ROUTE = "test_route"  # [TestRouteRequest -> RouteResult]
    LATENCY = "latency"  # [LatencyRequest -> LatencyResponse]
    # For monitors.
    METRICS = "metrics"  # [an Accept header -> a content type, a line end, and the text]
    READY = "ready"  # [Empty -> JSON, "ready" and "because"]
    # Of workers, by themselves.
    LOOK = "look"  # [:data:`INBOUNDS` or nothing -> nothing], newer figures are wanted: they come as snapshots
    BRING = (
        "bring"  # [name of a snapshot -> its revision], a large one is wanted on another host, under a key of its own
    )
    WATCH_LOGS = (
        "watch_logs"  # [:class:`pgnode.bus.log_batches.Watch` -> nothing], whether somebody watches the log there
    )


#: Commands about traffic, which change no user: they never wait for a change of users.
QUERY_KINDS = frozenset({Kind.TAKE_STATS, Kind.SETTLE})

#: Commands that take minutes, one at a time and beside everything else.
MAINTENANCE_KINDS = frozenset({Kind.CORE_UPDATE, Kind.GEOFILES, Kind.HARD_RESET, Kind.UPDATE, Kind.NEW_CORE})

#: Inspections: commands that only ask. Each is done on its own, and none waits for another.
INSPECTION_KINDS = frozenset(
    {
        Kind.LIST_RULES,
        Kind.BALANCER_INFO,
        Kind.TEST_ROUTE,
        Kind.LATENCY,
        Kind.METRICS,
        Kind.READY,
        Kind.WATCH_LOGS,
        Kind.LOOK,
        Kind.BRING,
    }
)


#: Questions about the core: they wait while a new supervisor does not know yet whether one runs. Changes, which wait for that as
#: well, have a queue of their own.
CORE_KINDS = frozenset(
    {Kind.TAKE_STATS, Kind.LIST_RULES, Kind.BALANCER_INFO, Kind.TEST_ROUTE, Kind.LATENCY, Kind.READY}
)

#: Commands of which any number are done as one; every other kind is a barrier in the order of changes.
GATHERED_KINDS = frozenset({Kind.SYNC_USER, Kind.SYNC_CHUNKED})

#: Body of a LOOK for statistics of inbounds, which are not counted unless somebody wants them.
INBOUNDS: Final = b"inbounds"

#: Field of a command entry that names the worker.
WORKER_FIELD: Final = worker_field()

#: Follows the budget of a command whose body is under a key of its own.
BLOB_MARK = b"*"

_KINDS = {kind.encode(): kind for kind in Kind}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(slots=True, eq=False)
class Command:
    """One command as the supervisor sees it."""

    entry_id: str
    id: str
    kind: Kind
    worker: str
    budget_ms: int
    body: bytes
    #: The body came by a key of its own.
    blob: bool = False

    @property
    def expires_at_ms(self) -> int:
        """Redis's clock, Unix milliseconds, after which nobody waits for the answer any more."""
        return added_at_ms(self.entry_id) + self.budget_ms

    def __repr__(self) -> str:
        return f"Command({self.kind} {self.id} from {self.worker}, {len(self.body)} bytes)"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one command: ``error`` or ``body``."""

    body: bytes = b""
    error: NodeError | None = None
    #: The body is on loan: 0 when it is here, else in so many parts; None when it is not.
    lent: int | None = None
    #: The parts of a body on loan that is not here; they go under keys of their own.
    parts: Sequence[bytes] = ()

    def encode(self) -> bytes:
        """Return the value of the reply's field."""
        if self.error is None:
            return b" " + self.body if self.lent is None else b"=%d %b" % (self.lent, self.body)
        return f"{self.error.code} {self.error.text}".encode()

    @classmethod
    def decode(cls, data: bytes) -> Reply:
        """Read what :meth:`encode` made."""
        if data == DONE_BYTES:
            return DONE
        code, _, body = data.partition(b" ")
        if code:
            if code.startswith(b"="):
                return cls(body=body, lent=int(code[1:]))
            return cls(error=from_code(code.decode(), body.decode(errors="replace")))
        return cls(body=body)


def settlement(loan: str, *, delivered: bool) -> bytes:
    """Make the body of a SETTLE command.

    Args:
        loan: The id of the command that took.
        delivered: Whether the answer reached its caller.

    Returns:
        The body.
    """
    return f"{loan} {int(delivered)}".encode()


def parse_settlement(body: bytes) -> tuple[str, bool]:
    """Read what :func:`settlement` made.

    Args:
        body: The body of a SETTLE command.

    Returns:
        The loan, and whether the answer reached its caller.

    Raises:
        ValueError: It is something else.
    """
    loan, delivered = body.decode().split(" ")
    return loan, delivered == "1"


#: The answer that says no more than that it was done, and how it is encoded.
DONE_BYTES: Final = b" "
DONE: Final = Reply()


def encode_command(kind: Kind, budget_seconds: float, body: bytes, *, blob: bool) -> bytes:
    """Make the value of a command's field.

    Args:
        kind: What it asks for.
        budget_seconds: Seconds that its caller waits, from the entry's id on.
        body: Its message.
        blob: Whether the body is under a key of its own, and left out here.

    Returns:
        The value.
    """
    if blob:
        return b"%b %d%b " % (_NAMES[kind], int(budget_seconds * 1000), BLOB_MARK)
    return b"%b %d %b" % (_NAMES[kind], int(budget_seconds * 1000), body)


def decode_entry(entry_id: str, fields: Mapping[bytes, bytes]) -> list[Command]:
    """Read the commands in one entry of the stream, each as :func:`encode_command` made it.

    Args:
        entry_id: The entry.
        fields: What it holds.

    Returns:
        The commands, in their order.

    Raises:
        ValueError: One of them is something else.
        KeyError: No worker is named, or a kind is not known.
    """
    worker = fields[WORKER_FIELD].decode()
    commands: list[Command] = []
    for command_id, data in fields.items():
        if command_id == WORKER_FIELD:
            continue
        kind, budget, body = data.split(b" ", 2)
        blob = budget.endswith(BLOB_MARK)
        milliseconds = int(budget[: -len(BLOB_MARK)] if blob else budget)
        commands.append(Command(entry_id, command_id.decode(), _KINDS[kind], worker, milliseconds, body, blob))
    return commands
