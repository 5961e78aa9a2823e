"""The job ``core_update``: download a release, check it, try it with the running config, and exchange the core for it.

Nothing that runs is touched before the new core has said its version and taken the config. When a new core does not come up, the
previous one is restored. The selection is recorded only once the new core runs.
"""

from __future__ import annotations

import asyncio
import platform
from typing import TYPE_CHECKING

import structlog

from pgnode.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    NodeError,
    NotFoundError,
    StartFailedError,
    UpdateFailedError,
)
from pgnode.os_support.fault_points import async_fault_point
from pgnode.supervisor.maintenance.core_store import CoreStore
from pgnode.supervisor.maintenance.downloads import Downloads, progress_logger
from pgnode.supervisor.maintenance.node_port import MaintainedNode, SelectableCore
from pgnode.supervisor.maintenance.releases import asset_name, asset_url, digest_of, latest_url
from pgnode.wire.maintenance import LATEST, core_version_of
from pgnode.xray.process.base import Core
from pgnode.xray.process.executable import ExecutableCore

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)


class CoreUpdate:
    """Belongs to the supervisor's loop; one call at a time.

    Args:
        settings: Where releases are, and time limits.
        node: Exchanges the core.
        core: Checks configs, and is given the core to run.
        store: The cores on disk.
        downloads: Fetches the release.
    """

    def __init__(
        self, settings: Settings, node: MaintainedNode, core: SelectableCore, store: CoreStore, downloads: Downloads
    ) -> None:
        self._settings = settings
        self._node = node
        self._core = core
        self._store = store
        self._downloads = downloads

    def __repr__(self) -> str:
        return f"CoreUpdate({self._settings.core_releases_url})"

    async def run(self, request: dict[str, str]) -> str:
        """Do the job.

        Args:
            request: ``core_version``: "latest" or a version.

        Returns:
            What was done, for the caller.

        Raises:
            InvalidRequestError: The version is not known.
            DownloadFailedError: The release cannot be fetched.
            UpdateFailedError: The new core cannot be used; the previous one runs.
            DeadlineExceededError: The time was up before anything was changed.
        """
        limit = self._settings.maintenance_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                version = core_version_of(request.get("core_version", ""))
                if version == LATEST:
                    version = await self._downloads.latest_version(latest_url(self._settings.core_releases_url))
                before = self._core.known_version
                if version == before:
                    return f"core {version} is the node's core already"
                new = await self._prepare(version)
        except TimeoutError:
            raise DeadlineExceededError(
                f"core_update was not ready within {limit:g} s: nothing was changed; raise MAINTENANCE_TIMEOUT_SECONDS"
            ) from None
        finally:
            await asyncio.to_thread(self._store.drop_staging)
        await async_fault_point("core_update.prepared")
        # A supervisor that comes before the core is selected finishes that, or takes it back: nobody is dropped twice.
        await asyncio.to_thread(self._store.begin, version)
        ran = await self._exchange(new, version)
        await async_fault_point("core_update.exchanged")
        await asyncio.to_thread(self._store.select, version)
        await async_fault_point("core_update.selected")
        return f"core {version} runs in place of {before}" if ran else f"core {version} is what the next start will run"

    async def _prepare(self, version: str) -> Core:
        """Return the core of this version, on disk, tried with the running config. Raises what :meth:`run` raises."""
        path = await asyncio.to_thread(self._store.kept, version)
        if path is not None:
            log.info("core already downloaded", path=str(path))
        else:
            await self._download(version)
            staged = ExecutableCore(self._store.staging / "xray", self._settings.assets_dir)
            await self._check_version(staged, version)
            path = await asyncio.to_thread(self._store.take_over, version)
        core = ExecutableCore(path, self._settings.assets_dir)
        try:
            await self._check_version(core, version)
            base = self._node.running_base
            if base is not None:
                await self._core.check(base, core)
        except StartFailedError as error:
            await asyncio.to_thread(self._store.forget_unselected, version)
            raise UpdateFailedError(
                f"core {version} refuses the running config: {error.text}; core {self._core.known_version} stays"
            ) from None
        return core

    async def _download(self, version: str) -> None:
        asset = asset_name(platform.machine())
        url = asset_url(self._settings.core_releases_url, version, asset)
        await asyncio.to_thread(self._store.clean)
        archive = self._store.staging / asset
        try:
            wanted = digest_of(await self._downloads.text(f"{url}.dgst"))
            log.info("downloading", url=url)
            found = await self._downloads.file(url, archive, wanted.algorithm, progress_logger(log, asset))
        except NotFoundError:
            raise await self._unknown(version, asset) from None
        if found != wanted.hexadecimal:
            raise UpdateFailedError(
                f"wrong digest: {asset} of core {version} has {wanted.algorithm} {found[:16]}…, its .dgst file says "
                f"{wanted.hexadecimal[:16]}…; nothing was changed"
            )
        log.info("downloaded, digest correct", file=asset, algorithm=wanted.algorithm)
        await asyncio.to_thread(self._store.unpack, archive)

    async def _unknown(self, version: str, asset: str) -> InvalidRequestError:
        known = f'"{LATEST}"'
        try:
            latest = await self._downloads.latest_version(latest_url(self._settings.core_releases_url))
            known += f" (now {latest})"
        except NodeError as error:
            log.debug("latest version unknown", error=str(error))
        return InvalidRequestError(
            f"core_version {version} is not known: known are {known} and the other releases with {asset} at "
            f"{self._settings.core_releases_url}"
        )

    async def _check_version(self, core: ExecutableCore, version: str) -> None:
        try:
            said = await core.version(self._settings.core_start_timeout_seconds)
        except StartFailedError as error:
            raise UpdateFailedError(
                f"core {version} cannot be run: {error.text}; core {self._core.known_version} stays"
            ) from None
        if said != version:
            raise UpdateFailedError(
                f"core {version} says that it is {said}: nothing was changed, core {self._core.known_version} stays"
            )

    async def _exchange(self, new: Core, version: str) -> bool:
        """Return whether the new core runs now; False when nothing has to run. Raises UpdateFailedError."""
        old = self._core.core

        async def use_new() -> None:
            self._core.select(new)

        async def use_old() -> None:
            self._core.select(old)

        try:
            return await self._node.exchange_core(use_new, use_old, f"core {version}")
        except NodeError as error:
            await asyncio.to_thread(self._store.give_up, version)
            if not isinstance(error, StartFailedError):
                raise
            raise UpdateFailedError(f"core {version} did not come up: {error.text}") from None
