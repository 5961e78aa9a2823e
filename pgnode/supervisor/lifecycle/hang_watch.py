"""Looks for signs of life of the core, and has one ended that hangs: also while it lingers, and whatever else is under way.

What is decided by what was seen, :mod:`pgnode.supervisor.lifecycle.hang_policy` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from pgnode.os_support.clock import Clock
from pgnode.supervisor.lifecycle.hang_policy import HangPolicy, Look, Sign
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.listeners import Listener
from pgnode.xray.process.running import RunningCore
from pgnode.xray.process.signs_of_life import MAX_ASKED, PROBE_SECONDS, takes_connections

log = structlog.get_logger(__name__)

#: Seconds between two looks.
PROBE_INTERVAL_SECONDS = 2.0

#: Seconds that a look may be late; when it is later than that, earlier looks no longer count.
SLACK_SECONDS = 10.0

#: Asks inbounds: pid and listeners; True where one takes connections, False where none does, None where none could be asked.
Ask = Callable[[int, Sequence[Listener]], bool | None]


class CoreView(Protocol):
    """The core as this watch sees it."""

    @property
    def api(self) -> CoreApi | None:
        """The API of the process that runs."""

    @property
    def running(self) -> RunningCore | None:
        """The process that runs."""

    @property
    def run_id(self) -> str:
        """Tells this process from every other."""


class NodeView(Protocol):
    """The node as this watch sees it."""

    core_lock: asyncio.Lock

    @property
    def core_base(self) -> BaseConfig | None:
        """The config of the core that is there, also of one that lingers."""

    async def core_hangs(self, silent_seconds: float) -> None:
        """End the core. Called with the core lock held."""


class HangWatch:
    """Belongs to the supervisor's loop.

    Args:
        core: The core.
        node: Has its config, and ends it.
        limit_seconds: Seconds without a sign of life after which a core hangs.
        call_seconds: Seconds that its API has to answer.
        ask: Asks its inbounds; blocks for :data:`PROBE_SECONDS` at most.
        clock: Time and pauses.
        probe_interval_seconds: Seconds between two looks.
    """

    def __init__(
        self,
        core: CoreView,
        node: NodeView,
        *,
        limit_seconds: float,
        call_seconds: float,
        ask: Ask = takes_connections,
        clock: Clock | None = None,
        probe_interval_seconds: float = PROBE_INTERVAL_SECONDS,
    ) -> None:
        self._core = core
        self._node = node
        self._call_seconds = call_seconds
        self._ask = ask
        self._clock = clock if clock is not None else Clock()
        self._probe_interval_seconds = probe_interval_seconds
        self._policy = HangPolicy(limit_seconds, probe_interval_seconds + call_seconds + PROBE_SECONDS + SLACK_SECONDS)
        #: Inbounds take turns where there are more than are asked at once.
        self._turn = 0

    def __repr__(self) -> str:
        return f"HangWatch({self._policy!r})"

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await self._clock.sleep(self._probe_interval_seconds)
            await self.look()

    async def look(self) -> None:
        """Look once; end the core when it hangs."""
        run = self._core.run_id
        if not await self._hangs(run):
            return
        async with self._node.core_lock:
            # Whoever held the lock may have ended it, or have waited for it until it went on.
            silent_seconds = await self._hangs(run) if self._core.run_id == run else 0.0
            if silent_seconds:
                await self._node.core_hangs(silent_seconds)

    async def _hangs(self, run: str) -> float:
        began = self._clock.now()
        sign = await self._sign()
        return self._policy.saw(Look(run, began, self._clock.now(), sign))

    async def _sign(self) -> Sign:
        api, running, base = self._core.api, self._core.running, self._node.core_base
        if api is None or running is None or base is None:
            # One that is only coming up has a time limit of its own.
            return Sign.UNKNOWN
        try:
            await api.stats.sys_stats(self._call_seconds)
        except CoreApiError:
            pass
        else:
            return Sign.ALIVE
        taken = await asyncio.to_thread(self._ask, running.pid, self._some(base))
        if api is not self._core.api or taken is None:
            return Sign.UNKNOWN
        return Sign.ALIVE if taken else Sign.SILENT

    def _some(self, base: BaseConfig) -> list[Listener]:
        every = [claim.listener for claim in base.claims]
        if len(every) <= MAX_ASKED:
            return every
        self._turn = (self._turn + MAX_ASKED) % len(every)
        return [*every[self._turn :], *every[: self._turn]][:MAX_ASKED]
