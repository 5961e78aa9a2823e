"""Traffic as ``pgnode stats`` shows it: the store's counters by kind and name, with what a running node says. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from google.protobuf.message import DecodeError

from pgnode.bus.snapshots import Polled
from pgnode.store.lent_bytes import counters_of
from pgnode.store.rows import LedgerRow
from pgnode.store.state import StoredState
from pgnode.wire.stat_names import parse_counter
from pgnode.xray.config.accounts import email_key

#: Kinds of counters, in the order in which they are shown.
KINDS = ("user", "inbound", "outbound")


@dataclass(slots=True)
class Flow:
    """One user's, inbound's or outbound's traffic; bytes."""

    name: str
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    #: Counted and not known to have reached a caller that took it with ``reset``.
    owed_bytes: int = 0
    #: Addresses that a user is online from.
    online: int = 0

    @property
    def total_bytes(self) -> int:
        """Both ways."""
        return self.uplink_bytes + self.downlink_bytes


@dataclass(frozen=True, slots=True)
class LiveTraffic:
    """What a running node says of its traffic, beside the figures themselves."""

    state: str
    core_run: int
    #: None before the first reading of a core.
    polled: Polled | None = None
    #: From how many addresses users are online, by e-mail in lower case.
    online: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def decode(cls, values: Mapping[str, Any]) -> LiveTraffic:
        """Read what a supervisor says.

        Args:
            values: Its answer.

        Returns:
            The same.

        Raises:
            KeyError: It is of another version.
            TypeError: The same.
            ValueError: The same.
        """
        known = {each.name for each in fields(Polled)}
        polled = Polled(**{name: value for name, value in values["polled"].items() if name in known})
        online = {email_key(email): int(count) for email, count in values["online"].items()}
        return cls(str(values["state"]), int(values["core_run"]), polled if polled.age_ms is not None else None, online)


@dataclass(frozen=True, slots=True)
class ShownTraffic:
    """What is shown."""

    #: The state of the node; None where it does not answer.
    state: str | None
    #: Number of the last core run.
    core_run: int
    #: When the store was written last, Unix seconds.
    stored_at: float
    #: Kind -> flows, those with most traffic first.
    flows: Mapping[str, list[Flow]]
    #: Kind -> bytes handed out to callers of whom it is not known yet whether they got them; part of what is owed.
    on_loan_bytes: Mapping[str, int]
    #: None before the first reading of a core.
    polled: Polled | None
    #: Seconds since the core was read last, None where it never was.
    age_seconds: float | None
    #: The supervisor; None where none runs.
    pid: int | None = None

    def total(self, kind: str) -> Flow:
        """Add up one kind. What a user moved is an inbound's and an outbound's, too: kinds are not to be added up."""
        flows = self.flows[kind]
        return Flow(
            kind,
            sum(flow.uplink_bytes for flow in flows),
            sum(flow.downlink_bytes for flow in flows),
            sum(flow.owed_bytes for flow in flows),
            sum(flow.online > 0 for flow in flows),
        )


def traffic_of(state: StoredState, live: LiveTraffic | None, stored_at: float, pid: int | None = None) -> ShownTraffic:
    """Put together what the store and a running node say.

    Args:
        state: What the store holds.
        live: What the node says; None where it does not answer.
        stored_at: When the store was written last, Unix seconds.
        pid: The supervisor; None where none runs.

    Returns:
        What is to be shown.
    """
    on_loan = dict.fromkeys(KINDS, 0)
    for part in state.loans.values():
        # The supervisor says of a damaged one what becomes of it; all others are shown.
        with contextlib.suppress(DecodeError, TypeError):
            on_loan[part.kind] += sum(value for _, value in counters_of(part))
    return ShownTraffic(
        state=live.state if live is not None else None,
        core_run=live.core_run if live is not None else state.core_run,
        stored_at=stored_at,
        flows=flows_of(state.counters, live.online if live is not None else {}),
        on_loan_bytes=on_loan,
        polled=live.polled if live is not None else None,
        age_seconds=live.polled.age_seconds(0.0) if live is not None and live.polled is not None else None,
        pid=pid,
    )


def flows_of(counters: Mapping[str, LedgerRow], online: Mapping[str, int]) -> dict[str, list[Flow]]:
    """Sort the ledger's rows by kind and name.

    Args:
        counters: Name in the core -> row.
        online: From how many addresses users are online, by e-mail in lower case.

    Returns:
        Kind -> flows, those with most traffic first.
    """
    found: dict[str, dict[str, Flow]] = {kind: {} for kind in KINDS}
    for name, row in counters.items():
        counter = parse_counter(name)
        if counter is None or counter.kind not in found:
            continue
        flow = found[counter.kind].setdefault(counter.name, Flow(counter.name))
        if counter.type == "uplink":
            flow.uplink_bytes += row.total
        else:
            flow.downlink_bytes += row.total
        flow.owed_bytes += row.total - row.reported
    for flow in found["user"].values():
        flow.online = online.get(email_key(flow.name), 0)
    return {kind: sorted(of.values(), key=lambda flow: (-flow.total_bytes, flow.name)) for kind, of in found.items()}
