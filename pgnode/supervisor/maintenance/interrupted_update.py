"""A core update whose supervisor did not live to its end: the next one finishes it where the new core runs, and drops nobody.

Before the core is exchanged, the new one is noted beside the selection. A supervisor that takes over that core selects it. Where
any other core runs, or none, the update is given up: the previous core is the node's core.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from pgnode.errors import StartFailedError
from pgnode.supervisor.maintenance.core_store import CoreStore
from pgnode.supervisor.maintenance.node_port import SelectableCore
from pgnode.xray.process.executable import ExecutableCore

log = structlog.get_logger(__name__)


class InterruptedUpdate:
    """Belongs to the supervisor's loop.

    Args:
        core: Is given the core of the update.
        cores: Knows which update was under way.
        assets_dir: The folder with geo files.
    """

    def __init__(self, core: SelectableCore, cores: CoreStore, assets_dir: Path) -> None:
        self._core = core
        self._cores = cores
        self._assets_dir = assets_dir

    def __repr__(self) -> str:
        return f"InterruptedUpdate({self._cores!r})"

    async def resolve(self, running: str) -> None:
        """Finish the update that was under way, or give it up; nothing where there was none.

        Args:
            running: The core that was taken over, as it names itself; "" where there is none.
        """
        version = await asyncio.to_thread(self._cores.begun)
        try:
            if version is None:
                await asyncio.to_thread(self._cores.give_up)
            elif not await self._is_up(version, running):
                log.warning("a core update was interrupted and is given up, the previous core stays", version=version)
                await asyncio.to_thread(self._cores.give_up, version)
            else:
                log.info("a core update was interrupted, its core runs and is selected", version=version)
                await asyncio.to_thread(self._cores.select, version)
        except OSError as error:
            # The note stays, so the next supervisor does it.
            log.error("the end of a core update cannot be recorded", version=version, error=str(error))

    async def _is_up(self, version: str, running: str) -> bool:
        """Make the core of that version the node's own where it is the one that runs; return whether it is."""
        new, before = ExecutableCore(self._cores.path_of(version), self._assets_dir), self._core.core
        if running != str(new):
            return False
        self._core.select(new)
        try:
            await self._core.version()
        except StartFailedError as error:
            log.error("the core of an interrupted update cannot be run again", core=str(new), error=error.text)
            self._core.select(before)
            return False
        return True
