"""Commands of the workers to the supervisor, and its replies: what they hold and how they look in a stream.

A command: ``id`` (hex, unique), ``kind``, ``worker`` (whose replies stream gets the answer), ``budget_ms`` (how long
the caller waits, counted from the entry's own id, which is Redis's clock: hosts disagree about the time), and
``body`` (raw message bytes) or ``blob`` = 1 when the body is under a key of its own.

A reply: ``id``, ``code`` ("" = done, else an ERROR_CODE of pgnode.errors), ``body`` (message bytes, or the text of
the error).
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from pgnode.errors import NodeError, from_code


class Kind(enum.StrEnum):
    """What a command asks for; in brackets its body and the body of its reply."""

    START = "start"  # [Backend -> BaseInfoResponse]
    STOP = "stop"  # [Empty -> Empty]
    SYNC_USER = "sync_user"  # [User -> Empty]
    SYNC_USERS = "sync_users"  # [Users -> Empty], the set becomes exactly this
    SYNC_CHUNKED = "sync_chunked"  # [Users -> Empty], a delta: the listed ones only
    TAKE_STATS = "take_stats"  # [StatRequest with reset -> StatResponse]
    # Maintenance jobs: JSON bodies, and JSON with "detail" in their replies.
    CORE_UPDATE = "core_update"  # {"core_version": "latest" or "26.10.10"}
    GEOFILES = "geofiles"  # {"region": one of pgnode.wire.maintenance.REGIONS}
    HARD_RESET = "hard_reset"
    UPDATE = "update"
    ADD_RULE = "add_rule"  # [AddRoutingRuleRequest -> Empty]
    REMOVE_RULE = "remove_rule"  # [RemoveRoutingRuleRequest -> Empty]
    OVERRIDE_BALANCER = "override_balancer"  # [OverrideBalancerTargetRequest -> Empty]
    LIST_RULES = "list_rules"  # [Empty -> RoutingRulesResponse]
    BALANCER_INFO = "balancer_info"  # [BalancerInfoRequest -> BalancerInfoResponse]
    TEST_ROUTE = "test_route"  # [TestRouteRequest -> RouteResult]
    LATENCY = "latency"  # [LatencyRequest -> LatencyResponse]


#: Commands that read or book statistics: they never wait for a change of users.
QUERY_KINDS = frozenset({Kind.TAKE_STATS})

#: Commands that take minutes, one at a time and beside everything else.
MAINTENANCE_KINDS = frozenset({Kind.CORE_UPDATE, Kind.GEOFILES, Kind.HARD_RESET, Kind.UPDATE})

#: Commands that only look at the running core: each is done on its own, behind nothing and in front of nothing.
LOOK_KINDS = frozenset({Kind.LIST_RULES, Kind.BALANCER_INFO, Kind.TEST_ROUTE, Kind.LATENCY})


@dataclass(frozen=True, slots=True)
class Command:
    """One command as the supervisor sees it."""

    entry_id: str
    id: str
    kind: Kind
    worker: str
    budget_ms: int
    body: bytes

    @property
    def expires_at_ms(self) -> int:
        """Redis's clock, Unix milliseconds, after which nobody waits for the answer any more."""
        return int(self.entry_id.split("-", 1)[0]) + self.budget_ms

    def __repr__(self) -> str:
        return f"Command({self.kind} {self.id} from {self.worker}, {len(self.body)} bytes)"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one command: ``error`` or ``body``."""

    body: bytes = b""
    error: NodeError | None = None

    def fields(self, command_id: str) -> dict[str, bytes | str]:
        if self.error is None:
            return {"id": command_id, "code": "", "body": self.body}
        return {"id": command_id, "code": self.error.code, "body": self.error.text.encode()}

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> tuple[str, Reply]:
        command_id, code, body = fields[b"id"].decode(), fields[b"code"].decode(), fields[b"body"]
        if code:
            return command_id, cls(error=from_code(code, body.decode(errors="replace")))
        return command_id, cls(body=body)


def new_id() -> str:
    return secrets.token_hex(12)
