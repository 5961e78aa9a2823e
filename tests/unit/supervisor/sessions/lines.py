"""Lines as the core prints them, in a ring."""

from __future__ import annotations

from pgnode.supervisor.host.log_ring import LogRing
from pgnode.xray.config.inbounds import InboundSpec

DATE = "2026/11/30 07:34:20.791037"


def line(peer: str, email: str = "", *, tag: str = "in", verdict: str = "accepted", route: str = " >> out") -> bytes:
    """One line; "" as tag for an outbound without one."""
    detour = f" [{tag}{route}]" if tag else ""
    user = f" email: {email}" if email else ""
    return f"{DATE} from {peer} {verdict} tcp:example.com:443{detour}{user}".encode()


def ring_of(*lines: bytes) -> LogRing:
    """A ring with a block for each line, the first one of number 1."""
    ring = LogRing(10_000)
    for number, one in enumerate(lines):
        # Far apart, so that none of them share a block.
        ring.put(one, float(number), 1)
    return ring


def spec(
    tag: str, *, transport: str = "raw", port: int = 443, kinds: frozenset[str] = frozenset({"tcp"})
) -> InboundSpec:
    """An inbound."""
    return InboundSpec(tag, "vless", ports=((port, port),), transport=transport, managed=True, kinds=kinds)
