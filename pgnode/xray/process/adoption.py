"""Take over a core that an earlier supervisor left running, or end it.

A core whose record is true is taken over, or the copy of the record where that is damaged. A core whose supervisor died before it
wrote the record is known by its output, which goes to the folder's FIFO, and is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog

from pgnode.os_support.files import set_aside
from pgnode.os_support.pidfd import Pidfd
from pgnode.xray.process import run_folder
from pgnode.xray.process.record import (
    COPY_NAME,
    RECORD_NAME,
    CoreRecord,
    boot_id,
    read_records,
    start_ticks,
    write_record,
)
from pgnode.xray.process.running import RunningCore

log = structlog.get_logger(__name__)

#: Seconds a core without a true record has to end by itself.
_ORPHAN_GRACE_SECONDS: Final = 1.0


async def adopt(run_dir: Path) -> RunningCore | None:
    """Take over the core that an earlier supervisor left running in this folder, if its record is true.

    Args:
        run_dir: The core's private folder.

    Returns:
        The core; or None, and then the folder is clear: cores without a true record were ended, and record, socket and
        FIFO are gone.
    """
    records = await asyncio.to_thread(read_records, run_dir)
    for record in records:
        running = await asyncio.to_thread(_take_over, record, run_dir)
        if running is not None:
            await asyncio.to_thread(_mend, run_dir, record)
            return running
    await _end_orphans(run_dir)
    await asyncio.to_thread(run_folder.clear, run_dir)
    return None


async def adopt_one(folders: Iterable[Path], stop_seconds: float) -> RunningCore | None:
    """Take over the core in the first of some folders that has one, and end those in the others.

    Args:
        folders: Where cores may be, best first. All but the first one may be missing, and count only where they are private.
        stop_seconds: Seconds that a core which is too many has to end by itself.

    Returns:
        The core; None where there is none.
    """
    found: RunningCore | None = None
    for number, folder in enumerate(folders):
        if number and not run_folder.is_private(folder):
            continue
        running = await adopt(folder)
        if found is None:
            found = running
        elif running is not None:
            await running.terminate(stop_seconds)
            running.close()
    return found


def _mend(run_dir: Path, record: CoreRecord) -> None:
    """Write a true record over whatever else is in its place, or in that of its copy."""
    for name in (RECORD_NAME, COPY_NAME):
        if read_records(run_dir, name) == [record]:
            continue
        with contextlib.suppress(OSError):
            if (run_dir / name).is_dir():
                set_aside(run_dir / name)
            log.warning("the record of the core was damaged, written anew", file=str(run_dir / name))
            write_record(run_dir, record)


def _take_over(record: CoreRecord, run_dir: Path) -> RunningCore | None:
    try:
        process = Pidfd(record.pid)
    except (OSError, OverflowError, ValueError):
        return None
    try:
        # With the descriptor held the pid cannot become another's between these checks.
        genuine = (
            record.boot_id == boot_id()
            and record.start_ticks == start_ticks(record.pid)
            and run_folder.writes_to_fifo(record.pid, run_dir)
            and not process.has_ended()
        )
        if genuine:
            return RunningCore(record, run_dir, process, run_folder.open_fifo(run_dir, record.pid), None)
    except OSError:
        pass
    process.reap()
    process.close()
    return None


async def _end_orphans(run_dir: Path) -> None:
    """End cores whose output goes to this folder's FIFO, and that no true record names."""
    for process in await asyncio.to_thread(_orphans, run_dir):
        orphan = RunningCore(CoreRecord(process.pid, 0, "", "", "orphan"), run_dir, process, -1, None)
        try:
            await orphan.end(_ORPHAN_GRACE_SECONDS)
        finally:
            orphan.close()


def _orphans(run_dir: Path) -> list[Pidfd]:
    """Find the processes that write to the FIFO; the caller closes their descriptors."""
    found: list[Pidfd] = []
    if not run_dir.is_dir():
        return found
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid() or not run_folder.writes_to_fifo(int(entry), run_dir):
            continue
        with contextlib.suppress(OSError):
            process = Pidfd(int(entry))
            if run_folder.writes_to_fifo(process.pid, run_dir):
                found.append(process)
            else:
                process.close()
    return found
