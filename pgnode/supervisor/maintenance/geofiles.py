"""The job ``geofiles``: download geoip.dat and geosite.dat of a region, check them, and put both in place.

The running config is tried with the new files before anything is touched. The core is restarted only when its config uses geo
files, and with the previous files when it does not come up.
"""

from __future__ import annotations

import asyncio
import mmap
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from pgnode.errors import DeadlineExceededError, NotFoundError, StartFailedError, UpdateFailedError
from pgnode.supervisor.maintenance.downloads import Downloads, progress_logger
from pgnode.supervisor.maintenance.node_port import MaintainedNode, SelectableCore
from pgnode.supervisor.maintenance.releases import sum_of
from pgnode.wire.maintenance import region_of
from pgnode.xray.config.geo_refs import uses_files
from pgnode.xray.geodata.dat_files import GeoKind, NoGeoFileError, read_geo_codes

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

KINDS: Final[tuple[GeoKind, ...]] = ("geoip", "geosite")

#: Smaller than any real file: such a one is an error page, say.
MIN_BYTES = 16

#: Folders in the assets folder for what is new and what was there before; the same file system, so that files can be moved.
_NEW, _OLD = ".geofiles.new", ".geofiles.old"


class GeoFiles:
    """Belongs to the supervisor's loop; one call at a time.

    Args:
        settings: Where files come from and go to, and time limits.
        node: Restarts the core.
        core: Checks configs.
        downloads: Fetches the files.
    """

    def __init__(self, settings: Settings, node: MaintainedNode, core: SelectableCore, downloads: Downloads) -> None:
        self._settings = settings
        self._node = node
        self._core = core
        self._downloads = downloads
        self._folder = settings.assets_dir
        #: Files that were replaced, of which the old ones are still kept.
        self._replaced: list[GeoKind] = []

    def __repr__(self) -> str:
        return f"GeoFiles({self._folder})"

    async def run(self, request: dict[str, str]) -> str:
        """Do the job.

        Args:
            request: ``region``: one of :data:`pgnode.wire.maintenance.REGIONS`.

        Returns:
            What was done, for the caller.

        Raises:
            DownloadFailedError: A file cannot be fetched.
            UpdateFailedError: The files cannot be used, or not be written; the previous ones are in place.
            DeadlineExceededError: The time was up before anything was changed.
        """
        region = region_of(request["region"])
        limit = self._settings.maintenance_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                await asyncio.to_thread(self._prepare_folders)
                found = [await self._fetch(region, kind) for kind in KINDS]
                await self._try_config(region)
            core = await self._put_in_place(region)
        except TimeoutError:
            raise DeadlineExceededError(
                f"geofiles were not ready within {limit:g} s: nothing was changed; raise MAINTENANCE_TIMEOUT_SECONDS"
            ) from None
        finally:
            await asyncio.to_thread(drop_folders, self._folder)
        return f"geo files of region {region} are in place ({', '.join(found)}); {core}"

    def _prepare_folders(self) -> None:
        try:
            drop_folders(self._folder)
            for name in (_NEW, _OLD):
                (self._folder / name).mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise UpdateFailedError(
                f"the assets folder {self._folder} cannot be written ({error.strerror}): set XRAY_ASSETS_PATH to one that can, "
                "or unset it"
            ) from None

    async def _fetch(self, region: str, kind: GeoKind) -> str:
        """Download and check one file; return what it is. Errors leave everything as it was."""
        url = f"{getattr(self._settings, f'geofiles_{region}_url')}/{kind}.dat"
        path = self._folder / _NEW / f"{kind}.dat"
        try:
            published = sum_of(await self._downloads.text(f"{url}.sha256sum"))
        except NotFoundError:
            published = None
        log.info("downloading", url=url, checksum="published" if published is not None else "none is published")
        try:
            digest = await self._downloads.file(url, path, "sha256", progress_logger(log, path.name))
        except NotFoundError as error:
            raise UpdateFailedError(f"no {kind}.dat for region {region}: {error.text}") from None
        if published is not None and digest != published.hexadecimal:
            raise UpdateFailedError(
                f"wrong digest: {kind}.dat has sha256 {digest[:16]}…, published is {published.hexadecimal[:16]}…; "
                f"nothing was changed ({url})"
            )
        try:
            codes = await asyncio.to_thread(_check, path, kind)
        except NoGeoFileError as error:
            raise UpdateFailedError(f"broken {kind}.dat: {error}; nothing was changed ({url})") from None
        return f"{kind}.dat with {codes} codes"

    async def _try_config(self, region: str) -> None:
        base = self._node.running_base
        if base is None or not uses_files(base.document):
            return
        trial = self._folder / _NEW
        await asyncio.to_thread(self._link_others, trial)
        try:
            await self._core.check(base, self._core.core.with_assets(trial))
        except StartFailedError as error:
            raise UpdateFailedError(
                f"the running config does not work with the files of region {region}: {error.text}; nothing was changed"
            ) from None

    def _link_others(self, trial: Path) -> None:
        """Link the other files of the assets folder, for configs that name them (``ext:``)."""
        for path in self._folder.iterdir():
            if path.is_file() and not (trial / path.name).exists():
                (trial / path.name).symlink_to(path)

    async def _put_in_place(self, region: str) -> str:
        """Replace the files; return what that meant for the core."""

        async def use_new() -> None:
            await asyncio.to_thread(self._swap, self._folder / _NEW)

        async def use_old() -> None:
            await asyncio.to_thread(self._swap_back)

        bases = [base for base in (self._node.running_base, self._node.core_base) if base is not None]
        if not any(uses_files(base.document) for base in bases):
            async with self._node.core_lock:
                await use_new()
            return "the core's config uses none, so it went on" if bases else "the next start has them"
        try:
            restarted = await self._node.exchange_core(use_new, use_old, f"geo files of region {region}")
        except StartFailedError as error:
            raise UpdateFailedError(
                f"the core did not come up with the files of region {region}: {error.text}; the previous files were restored"
            ) from None
        return "the core was started with them" if restarted else "the next start has them"

    def _swap(self, source: Path) -> None:
        """Replace the files; each is there all the time, as the old or the new one. Raises UpdateFailedError."""
        old = self._folder / _OLD
        self._replaced.clear()
        try:
            for kind in KINDS:
                there = self._folder / f"{kind}.dat"
                if there.exists():
                    shutil.copy2(there, old / there.name)
                    # Others may read the folder, too.
                    shutil.copymode(there, source / there.name)
            for kind in KINDS:
                (source / f"{kind}.dat").replace(self._folder / f"{kind}.dat")
                self._replaced.append(kind)
        except OSError as error:
            self._swap_back()
            raise UpdateFailedError(f"the geo files cannot be replaced: {error.strerror} ({self._folder})") from None

    def _swap_back(self) -> None:
        """Restore the files that were replaced."""
        while self._replaced:
            name = f"{self._replaced.pop()}.dat"
            before = self._folder / _OLD / name
            if before.exists():
                before.replace(self._folder / name)
            else:
                (self._folder / name).unlink(missing_ok=True)


def drop_folders(assets_dir: Path) -> None:
    """Remove what a job keeps while it works, also one that was interrupted.

    Args:
        assets_dir: The folder with geo files.
    """
    for name in (_NEW, _OLD):
        shutil.rmtree(assets_dir / name, ignore_errors=True)


def _check(path: Path, kind: GeoKind) -> int:
    """Return the number of codes in a file. Raises NoGeoFileError."""
    if path.stat().st_size < MIN_BYTES:
        raise NoGeoFileError(f"no {kind} file: it has {path.stat().st_size} bytes")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return len(read_geo_codes(data, kind))
