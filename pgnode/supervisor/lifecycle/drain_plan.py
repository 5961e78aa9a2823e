"""What a drain takes out of the core, and what it leaves there. Pure.

An inbound is taken out only where that ends nobody's connection, and where the running core can be given it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pgnode.xray.config.diff import why_only_with_a_new_core
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.inbounds import InboundSpec


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """What an operator asked for."""

    #: When, Unix seconds.
    since: float
    #: When it ends by itself, Unix seconds; None for never.
    until: float | None = None
    #: It goes on over starts by the panel.
    hold: bool = False

    def encode(self) -> str:
        """Return it as the store keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> DrainOrder | None:
        """Read what :meth:`encode` made.

        Args:
            text: What the store has.

        Returns:
            The order; None where there is none, or none that can be read.
        """
        try:
            found: dict[str, Any] = json.loads(text)
            since, until = float(found["since"]), found.get("until")
            return cls(since, None if until is None else float(until), found.get("hold") is True)
        except (ValueError, TypeError, KeyError, OverflowError):
            return None

    def seconds_left(self, now: float) -> float | None:
        """Return for how long it goes on.

        Args:
            now: Unix seconds. Where that clock was set back, nothing is longer than it was meant to be.

        Returns:
            Seconds, not below 0; None for an order that does not end by itself.
        """
        if self.until is None:
            return None
        return max(0.0, self.until - max(now, self.since))


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """Which inbounds are taken out of a core."""

    #: Their tags, in the config's order.
    taken: tuple[str, ...]
    #: Those that stay, as an operator would call them -> why.
    kept: Mapping[str, str]


def plan_drain(base: BaseConfig) -> DrainPlan:
    """Decide which inbounds can be taken out.

    Args:
        base: What the core runs.

    Returns:
        The plan.
    """
    taken: list[str] = []
    kept: dict[str, str] = {}
    for inbound, spec in zip(base.document["inbounds"], base.inbounds, strict=True):
        why = _why_kept(inbound, spec)
        if why:
            kept[spec.title] = why
        else:
            taken.append(spec.tag)
    return DrainPlan(tuple(taken), kept)


def _why_kept(inbound: Mapping[str, Any], spec: InboundSpec) -> str:
    if not spec.tag:
        return "it has no tag, by which the core could find it"
    if why := why_only_with_a_new_core(inbound, spec):
        return f"the running core could not be given it again: {why}"
    if not spec.outlives_listener:
        how = spec.protocol if spec.transport == "raw" else spec.transport
        return f"its connections would end with it ({how})"
    if "udp" in spec.kinds:
        return "what goes over UDP would end with it"
    return ""
