"""Names of the core's traffic counters, and the statistics they are on the wire. Pure.

The core names a counter ``user>>>alice>>>traffic>>>uplink`` (source: xray-core ``app/stats``); on the wire that is
``Stat{name=alice, link=traffic, type=uplink}``. A name with fewer than four parts is no statistic.
"""

from __future__ import annotations

from typing import NamedTuple

SEPARATOR = ">>>"

#: What is answered about an inbound that is not counted and owes nothing.
INBOUNDS_NOT_COUNTED = (
    "traffic of inbounds is not counted by this core: the next one does, unless INBOUND_STATS=off or the config says no"
)


class Counter(NamedTuple):
    """A counter's name, taken apart."""

    #: "user", "inbound" or "outbound".
    kind: str
    #: E-mail or tag.
    name: str
    #: "traffic".
    link: str
    #: "uplink" or "downlink".
    type: str


def parse_counter(counter: str) -> Counter | None:
    """Return the parts of a counter's name; None for what is no statistic. The name itself may hold the separator."""
    kind, _, rest = counter.partition(SEPARATOR)
    parts = rest.rsplit(SEPARATOR, 2)
    if len(parts) < 3:
        return None
    return Counter(kind, *parts)


def counter_name(counter: Counter) -> str:
    """Return the counter's name in the core."""
    return SEPARATOR.join(counter)
