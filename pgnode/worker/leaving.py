"""How a gRPC worker leaves while others serve its port, so that no caller's call fails for it.

The gRPC library resets connections whose TLS handshakes are under way when a server ends. And it tells all callers at once
that it ends, upon which some callers' libraries give up what they have under way: grpclib 0.4.9 does, which the panel uses
(``process_connection_terminated`` in its protocol.py). So those who are connecting are let in first, and then a moment without a
call is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from pgnode.metrics.meter import FaceMeter
from pgnode.os_support.packet_filter import Network, restrict_listeners

log = structlog.get_logger(__name__)

#: Seconds without a call after which the server may end: the last answer has been sent by then.
QUIET_SECONDS: Final = 0.005


async def let_arrive(port: int, networks: Sequence[Network], seconds: float) -> None:
    """Keep new connections away, and wait until those who have connected had their handshakes.

    Whoever is kept away asks again a second later (RFC 6298), and finds another worker.

    Args:
        port: Where this process listens, with others.
        networks: Who may connect at all; none: everybody.
        seconds: How long handshakes may take.
    """
    try:
        restrict_listeners(port, networks, new_connections=False)
    except OSError as error:
        log.warning(
            "the kernel takes no filter: who connects while this worker ends may have to connect again",
            error=str(error),
        )
    await asyncio.sleep(seconds)


async def no_call_runs(meter: FaceMeter, seconds: float) -> bool:
    """Wait for a moment without a call.

    Args:
        meter: Counts the calls.
        seconds: How long it may take.

    Returns:
        Whether there was one.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        begun, ran = meter.begun, meter.in_flight
        await asyncio.sleep(QUIET_SECONDS)
        if not ran and not meter.in_flight and meter.begun == begun:
            return True
    return False
