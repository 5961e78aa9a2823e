"""Upgrades the node with pip, in the environment that it runs in.

Everything that can fail is done beside that environment first: what is to be installed is found out and downloaded, put into a
folder of its own, checked by ``pip check``, and tried by a process that does all of a start but starting. Only then is it
installed; the files that it replaces are kept until the same checks have passed with it, and are put back where they do not.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import Final

import structlog

from pgnode.errors import NodeError, UpdateFailedError
from pgnode.os_support.fault_points import async_fault_point
from pgnode.os_support.files import read_json
from pgnode.supervisor.maintenance.installation import Installation
from pgnode.supervisor.maintenance.programs import Ended, run_program
from pgnode.supervisor.processes.restart_in_place import Trial

log = structlog.get_logger(__name__)

NAME: Final = "pgnode"

#: Bytes of the largest report of pip's that is read.
REPORT_BYTES: Final = 64 * 1024 * 1024

#: Characters of pip's output that are told: its end.
TOLD_CHARACTERS: Final = 800

#: Settings of pip that would put packages elsewhere.
_ELSEWHERE: Final = frozenset({"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER"})

#: Nothing is built: building would run what was downloaded before anybody has looked at it.
_WHEELS_ALONE: Final = ("--only-binary", ":all:")

#: Tries whether the version that is found with these variables can start.
TryVersion = Callable[[Mapping[str, str]], Awaitable[Trial]]


class PackageUpdate:
    """One upgrade.

    Args:
        installation: What is upgraded.
        folder: A folder for this alone; it is emptied before and after.
        limit_seconds: Seconds that all of it may take.
        try_version: Tries a version.
    """

    def __init__(self, installation: Installation, folder: Path, limit_seconds: float, try_version: TryVersion) -> None:
        self._installation = installation
        self._folder = folder
        self._until = time.monotonic() + limit_seconds
        self._try_version = try_version
        self._wheels = folder / "wheels"
        self._scratch = folder / "packages"
        self._kept = folder / "kept"
        kept = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
        self._environment = {**kept, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def __repr__(self) -> str:
        return f"PackageUpdate({self._installation.prefix})"

    async def run(self) -> str | None:
        """Do it.

        Returns:
            The version that is installed now; None where there is no newer one.

        Raises:
            UpdateFailedError: It cannot be had, or cannot be used here; what was installed before is there.
            DeadlineExceededError: It took too long; likewise.
        """
        await asyncio.to_thread(self._begin)
        try:
            wanted = await self._find()
            version = wanted.get(NAME)
            if version is None:
                return None
            exact = [f"{name}=={found}" for name, found in wanted.items()]
            await self._pip("download", *_WHEELS_ALONE, "--no-deps", "--dest", str(self._wheels), *exact)
            offline = (*_WHEELS_ALONE, "--no-deps", "--no-index", "--find-links", str(self._wheels))
            await self._pip("install", *offline, "--target", str(self._scratch), *exact)
            complaints = await self._complaints({})
            await self._check(self._beside(), complaints, f"pgnode {version} was not installed")
            log.info("the new version was tried, installing it", version=version, packages=sorted(wanted))
            await asyncio.to_thread(self._keep, wanted)
            await async_fault_point("update.tried")
            try:
                await self._pip("install", *offline, "--upgrade", *exact)
                await async_fault_point("update.installed")
                await self._check({}, complaints, f"pgnode {version} was taken back")
            except (NodeError, OSError):
                await asyncio.to_thread(self._put_back, wanted)
                raise
            return version
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _begin(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        for folder in (self._wheels, self._scratch, self._kept):
            folder.mkdir(parents=True)

    async def _find(self) -> dict[str, str]:
        """Return the versions of what an upgrade would install, by name. Raises UpdateFailedError."""
        report = self._folder / "report.json"
        await self._pip("install", *_WHEELS_ALONE, "--dry-run", "--report", str(report), "--upgrade", NAME)
        try:
            found = (await asyncio.to_thread(read_json, report, REPORT_BYTES))["install"]
            return {str(one["metadata"]["name"]).lower(): str(one["metadata"]["version"]) for one in found}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UpdateFailedError(f"pip's report cannot be read: {error}; upgrade pip, and try again") from None

    def _beside(self) -> dict[str, str]:
        """Return the variables with which a process finds the new packages before those that are installed."""
        before = os.environ.get("PYTHONPATH")
        return {"PYTHONPATH": f"{self._scratch}{os.pathsep}{before}" if before else str(self._scratch)}

    async def _check(self, variables: Mapping[str, str], complaints: Sequence[str], outcome: str) -> None:
        """Make sure that what is found with these variables can be used. Raises UpdateFailedError."""
        new = [line for line in await self._complaints(variables) if line not in complaints]
        if new:
            raise UpdateFailedError(f"{outcome}: {'; '.join(new)[:TOLD_CHARACTERS]}")
        tried = await self._try_version(variables)
        if reason := tried.reason or tried.difference.refusal:
            raise UpdateFailedError(f"{outcome}: it cannot start here: {reason}")

    async def _complaints(self, variables: Mapping[str, str]) -> list[str]:
        """Return what does not fit together, as ``pip check`` says."""
        ended = await self._run(["check"], variables)
        return [line for line in ended.output.splitlines() if line.strip()] if ended.code else []

    async def _pip(self, *words: str) -> None:
        """Run pip. Raises UpdateFailedError with its last words."""
        ended = await self._run([*words, "--quiet"])
        if ended.code:
            raise UpdateFailedError(
                f"`pip {words[0]}` failed: {ended.output[-TOLD_CHARACTERS:] or f'exit code {ended.code}'}"
            )

    async def _run(self, words: Sequence[str], variables: Mapping[str, str] | None = None) -> Ended:
        # Safe: a file in the working directory is no module of pip's.
        command = [self._installation.python, "-P", "-m", "pip", *words]
        left_seconds = max(1.0, self._until - time.monotonic())
        environment = {**self._environment, **(variables or {})}
        return await run_program(
            command, self._folder / "pip.log", left_seconds, name=f"pip {words[0]}", environment=environment
        )

    def _keep(self, names: Mapping[str, str]) -> None:
        """Copy what is going to be replaced."""
        prefix = self._installation.prefix.resolve()
        for name in names:
            for path in self._files_of(name):
                target = self._kept / path.relative_to(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target, follow_symlinks=False)

    def _put_back(self, names: Mapping[str, str]) -> None:
        """Remove what was installed, and bring back what was kept."""
        for name in names:
            for path in self._files_of(name):
                path.unlink(missing_ok=True)
            for record in self._records_of(name):
                shutil.rmtree(record, ignore_errors=True)
        shutil.copytree(self._kept, self._installation.prefix.resolve(), symlinks=True, dirs_exist_ok=True)
        log.warning("the version before was put back", packages=sorted(names))

    def _records_of(self, name: str) -> list[Path]:
        found = self._installation.packages.glob("*.dist-info")
        return [path for path in found if _normal(path.stem.partition("-")[0]) == _normal(name)]

    def _files_of(self, name: str) -> Iterator[Path]:
        """Yield the files that a package has in this environment."""
        prefix = self._installation.prefix.resolve()
        for record in self._records_of(name):
            for file in Distribution.at(record).files or ():
                # Not through links: a file that is one is itself of the package.
                path = Path(os.path.normpath(Path(str(file.locate())).absolute()))
                path = path.parent.resolve() / path.name
                if path.is_relative_to(prefix) and (path.is_file() or path.is_symlink()):
                    yield path


def _normal(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
