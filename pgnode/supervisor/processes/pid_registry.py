"""Which processes a supervisor has started, in a file: a later one ends what the earlier one left behind.

The file may be a copy: of a node that runs beside this one, of one on another host or in another container, or of a backup. So
it says where its pids mean something, and elsewhere it names nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Collection
from pathlib import Path

import psutil
import structlog

from pgnode.os_support.files import read_json, set_aside, write_atomically
from pgnode.xray.process.record import boot_id, start_ticks

log = structlog.get_logger(__name__)

#: Bytes of the largest file that is read.
MAX_BYTES = 1024 * 1024

#: Seconds that killed orphans have to disappear.
GONE_SECONDS = 5.0


class PidRegistry:
    """The pids of running children with their start times, in clock ticks since boot, which nobody can set.

    A pid alone may have been given to somebody else since.

    Args:
        path: The file; it need not exist. None: nobody would look for it, and the kernel ends the children with this process.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._started: dict[str, tuple[int, int]] = {}

    def __repr__(self) -> str:
        return f"PidRegistry({sorted(self._started)})"

    def put(self, name: str, pid: int) -> None:
        """Note a child that was started; nothing depends on that being possible."""
        try:
            ticks = start_ticks(pid)
        except (OSError, ValueError) as error:
            log.warning("pid not noted", child=name, pid=pid, error=str(error))
            return
        if ticks:
            self._started[name] = (pid, ticks)
            self._write()

    def remove(self, name: str) -> None:
        """Take note that a child has ended."""
        if self._started.pop(name, None) is not None:
            self._write()

    async def end_orphans(self, spare: Collection[int] = ()) -> None:
        """End what an earlier supervisor left behind, with all that it started, and wait until it is gone.

        Args:
            spare: Pids that were left on purpose.
        """
        if self._path is None:
            return
        orphans = await asyncio.to_thread(self._find_orphans, self._path, spare)
        for process in orphans:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if orphans:
            await asyncio.to_thread(psutil.wait_procs, orphans, GONE_SECONDS)
        try:
            self._path.unlink(missing_ok=True)
        except IsADirectoryError:
            log.warning(
                "a folder in place of a file, set aside", path=str(await asyncio.to_thread(set_aside, self._path))
            )
        except OSError as error:
            log.warning("pids not removed", path=str(self._path), error=error.strerror)

    def _find_orphans(self, path: Path, spare: Collection[int]) -> list[psutil.Process]:
        """Return the processes of the file that still run, and their descendants."""
        try:
            found = read_json(path, MAX_BYTES)
            noted = [(str(name), int(pid), int(ticks)) for name, (pid, ticks) in found["children"].items()]
            if noted and found["place"] != place_of(path.parent):
                log.info("noted pids are of another boot, host, container or folder, left alone", path=str(path))
                return []
        except (OSError, ValueError, TypeError, AttributeError, KeyError, OverflowError):
            return []
        orphans: list[psutil.Process] = []
        for name, pid, ticks in noted:
            # Whatever the file says, it is no reason to end the machine's first process, or this one.
            if pid <= 1 or pid == os.getpid() or pid in spare:
                continue
            with contextlib.suppress(psutil.Error, OSError, ValueError, OverflowError):
                process = psutil.Process(pid)
                if start_ticks(pid) == ticks:
                    log.warning("ending an orphan of an earlier run", child=name, pid=pid)
                    orphans += [process, *process.children(recursive=True)]
        return orphans

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            # After a crash of the machine it means nothing, so it is not flushed to the disk.
            content = json.dumps({"place": place_of(self._path.parent), "children": self._started})
            write_atomically(self._path, content, durable=False)
        except OSError as error:
            # The kernel ends the children when the supervisor dies; the file is for those that it did not.
            log.warning("pids not written", path=str(self._path), error=error.strerror)


def place_of(folder: Path) -> str:
    """Say where pids that are noted in a folder mean something.

    Args:
        folder: The folder.

    Returns:
        This boot of this machine, the pid namespace (a container has its own), and the very folder: a copy is another one.

    Raises:
        OSError: The folder, or what the kernel says, cannot be read.
    """
    found = folder.stat()
    return f"{boot_id()} {Path('/proc/self/ns/pid').readlink()} {found.st_dev}:{found.st_ino}"
