"""Which core a supervisor begins with: the one that was selected over the API, if it can be run, or the default."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from pgnode.errors import ChildFailedError, StartFailedError
from pgnode.supervisor.maintenance.core_store import CoreStore
from pgnode.supervisor.maintenance.geofiles import drop_folders
from pgnode.supervisor.maintenance.node_port import SelectableCore
from pgnode.xray.process.executable import ExecutableCore

log = structlog.get_logger(__name__)


async def select_initial_core(
    core: SelectableCore, cores: CoreStore, assets_dir: Path, *, own_assets: bool = True
) -> None:
    """Select the core, and learn its version. What interrupted maintenance jobs left is removed.

    Args:
        core: Is given the selected core; has the default.
        cores: Knows what was selected.
        assets_dir: The folder with geo files.
        own_assets: That folder is this node's alone; in another one a job of another node may be at work.

    Raises:
        ChildFailedError: No core can be run.
    """
    default = core.core
    await asyncio.to_thread(cores.clear_up)
    if own_assets:
        await asyncio.to_thread(drop_folders, assets_dir)
    path = await asyncio.to_thread(cores.selected)
    if path is not None:
        core.select(ExecutableCore(path, assets_dir))
        try:
            await core.version()
            return
        except StartFailedError as error:
            log.error("selected core cannot be run, using the default", core=str(path), error=error.text)
            core.select(default)
    try:
        await core.version()
    except StartFailedError as error:
        raise ChildFailedError(f"the core cannot be run: {error}") from None
