"""Whether a core counts the traffic of its inbounds, which costs users something. Pure.

With these counters the core copies each byte itself where the kernel would have done so (core 26.10.10): uploads cost it 1.2 to 2
times as much time in nearly every protocol (docs/performance.md). Users and outbounds are counted without them. They are switched
for a core as a whole, when it starts.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import Final

from pgnode.xray.config.document import BaseConfig, recut
from pgnode.xray.config.rewrite import INBOUND_COUNTERS


class InboundCounting(enum.Enum):
    """What decides whether a core counts its inbounds."""

    AS_CONFIGURED = "the config; where it says nothing, they are not counted"
    WHERE_SILENT = "the config; where it says nothing, they are counted"
    ALWAYS = "counted"
    NEVER = "not counted"


#: What is in ``policy.system`` where the choice does not leave it to the config.
_FORCED: Final = {InboundCounting.ALWAYS: True, InboundCounting.NEVER: False}


def counts_inbounds(base: BaseConfig, counting: InboundCounting) -> bool:
    """Return whether a core with this config counts inbounds, in one direction at least."""
    policy = with_inbound_counters(base, counting).document.get("policy") or {}
    system = policy.get("system") or {}
    return any(system.get(name) is True for name in INBOUND_COUNTERS)


def with_inbound_counters(base: BaseConfig, counting: InboundCounting) -> BaseConfig:
    """Make the same base config, ``base_hash`` included, whose core counts inbounds or does not."""
    policy = base.document.get("policy") or {}
    system = policy.get("system") or {}
    if counting in _FORCED:
        wanted = dict.fromkeys(INBOUND_COUNTERS, _FORCED[counting])
    elif counting is InboundCounting.WHERE_SILENT:
        wanted = {name: True for name in INBOUND_COUNTERS if system.get(name) is None}
    else:
        return base
    return recut(replace(base, document={**base.document, "policy": {**policy, "system": {**system, **wanted}}}))
