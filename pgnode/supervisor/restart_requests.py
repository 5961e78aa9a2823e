"""What is asked of a running supervisor: to restart in place (SIGUSR2), or to take its settings anew (SIGHUP).

Both end in the same way, since a restart in place cuts nobody's connection and takes every setting that a running node can take:
the supervisor becomes the next one, and its API workers are replaced one for one. What cannot be done is refused before anything
is touched; the node goes on as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import structlog

from pgnode.bus.state import State
from pgnode.supervisor.host.service_manager import ServiceManager
from pgnode.supervisor.processes.restart_in_place import RestartStatus, Trial

log = structlog.get_logger(__name__)

#: Seconds that a start or a stop which is under way may delay a restart in place.
AT_REST_SECONDS = 35.0

#: Seconds between two looks whether a core still lingers.
LINGER_POLL_SECONDS = 0.2

BUSY = "a start or a stop is under way that takes long, or a core lingers after a stop; try again"


class CoreHolder(Protocol):
    """Who starts, stops and changes the core."""

    @property
    def core_lock(self) -> asyncio.Lock:
        """Held by whoever does."""
        ...

    @property
    def state(self) -> State:
        """The state that the node is in."""
        ...


class RestartRequests:
    """Belongs to the supervisor's loop.

    Args:
        try_installed: Tries whether the version and the settings that are there now can start.
        node: Who has the core.
        reread: Has Gunicorn read GUNICORN_CONF again.
        run_dir: Where is said what became of a request.
        status: What is said of restarts so far.
        manager: Is told of each request, and of those that came to nothing.
        at_rest_seconds: Seconds that a start or a stop which is under way may delay a restart.
    """

    def __init__(
        self,
        try_installed: Callable[[], Awaitable[Trial]],
        node: CoreHolder,
        reread: Callable[[], None],
        run_dir: Path,
        status: RestartStatus,
        *,
        manager: ServiceManager | None = None,
        at_rest_seconds: float = AT_REST_SECONDS,
    ) -> None:
        self._try_installed = try_installed
        self._node = node
        self._reread = reread
        self._run_dir = run_dir
        self._status = status
        self._manager = manager if manager is not None else ServiceManager()
        self._at_rest_seconds = at_rest_seconds
        self._restart_asked = asyncio.Event()
        self._reload_asked = asyncio.Event()

    def __repr__(self) -> str:
        return f"RestartRequests({self._status!r})"

    def ask_restart(self) -> None:
        """Note that a restart in place is asked for."""
        self._restart_asked.set()

    def ask_reload(self) -> None:
        """Note that the settings have to be read anew."""
        self._reload_asked.set()

    async def say(self, *, trouble: str = "") -> None:
        """Say that this supervisor is there.

        Args:
            trouble: What did not go well when it came up.
        """
        await self._write(trouble=trouble)

    async def wait(self) -> None:
        """Return when this supervisor has to become the next one, and may: nobody starts, stops or changes the core then."""
        while True:
            await self._asked()
            self._manager.reloading()
            reload_only = not self._restart_asked.is_set()
            log.info(
                "a reload of the settings is asked for" if reload_only else "a restart in place is asked for",
                audit="node",
            )
            trial = await self._try_installed()
            found, reason = trial.difference, trial.reason or trial.difference.refusal
            if reload_only and not found and not reason:
                await self._nothing_changed()
                continue
            if not reason and not await self._core_at_rest():
                reason = BUSY
            if not reason:
                if found:
                    log.info("settings have changed", audit="settings", settings=found.summary)
                await self._write(changed=found.summary)
                return
            self._forget()
            asked = "reload" if reload_only else "restart"
            log.error("refused, the node goes on as it is", audit="node", asked=asked, reason=reason)
            await self._write(refused=self._status.refused + 1, reason=reason)
            self._manager.ready()

    async def _asked(self) -> None:
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._restart_asked, self._reload_asked)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()

    def _forget(self) -> None:
        self._restart_asked.clear()
        self._reload_asked.clear()

    async def _nothing_changed(self) -> None:
        self._forget()
        log.info("no setting is different; GUNICORN_CONF is read again", audit="settings")
        self._reread()
        await self._write(rereads=self._status.rereads + 1, changed="")
        self._manager.ready()

    async def _write(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)
        await asyncio.to_thread(self._status.write, self._run_dir)

    async def _core_at_rest(self) -> bool:
        """Wait until nobody starts, stops or changes the core, and let nobody begin; return whether that came."""
        node = self._node
        try:
            async with asyncio.timeout(self._at_rest_seconds):
                await node.core_lock.acquire()
                # After a stop users stay for a while; the next supervisor would end such a core at once.
                while node.state is State.LINGERING:
                    node.core_lock.release()
                    await asyncio.sleep(LINGER_POLL_SECONDS)
                    await node.core_lock.acquire()
        except TimeoutError:
            return False
        return True
