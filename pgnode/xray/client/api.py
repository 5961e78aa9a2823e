"""Client of the core's own gRPC API, on its unix socket: one object a core run, with a client for each kind of call."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pgnode.xray.client.channel import CoreChannel
from pgnode.xray.client.inbounds import InboundsClient
from pgnode.xray.client.stats import StatsClient
from pgnode.xray.client.swap import InboundSwap
from pgnode.xray.client.users import UsersClient
from pgnode.xray.proto.stats_command_pb2 import SysStatsResponse


class CoreApi:
    """The API of one running core. Belongs to the event loop of its first call; ``aclose`` it there.

    Every ``deadline_seconds`` of its clients bounds the whole method. Every method may raise CoreApiError.
    """

    def __init__(self, socket_path: Path | str) -> None:
        self.channel = CoreChannel(socket_path)
        self.stats = StatsClient(self.channel)
        self.users = UsersClient(self.channel)
        self.inbounds = InboundsClient(self.channel)
        self.swap = InboundSwap(self.inbounds, self.users)

    def __repr__(self) -> str:
        return f"<CoreApi {self.channel!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; calls under way end as unavailable."""
        await self.users.aclose()
        await self.channel.aclose()

    async def wait_ready(self, deadline_seconds: float) -> SysStatsResponse:
        """Wait until the core answers, and not longer.

        Args:
            deadline_seconds: Seconds until that is given up.

        Returns:
            The core's figures at its start.

        Raises:
            CoreApiError: It does not answer in time.
        """
        end = time.monotonic() + deadline_seconds
        await self.channel.wait_served(deadline_seconds)
        return await self.stats.sys_stats(max(end - time.monotonic(), 0.0), wait_for_ready=True)
