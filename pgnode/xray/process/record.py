"""The record beside a running core: which process it is, told so that a later supervisor can be sure of it.

A pid alone is not enough: the kernel gives it to another process once this one has ended. The start time of the process and
the id of the boot make it unique. There are two copies, for a damaged record would cost users' connections.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pgnode.os_support.files import overwrite, read_json, write_atomically

#: The record's file in the core's folder.
RECORD_NAME: Final = "core.json"

#: Its copy, for when that is damaged.
COPY_NAME: Final = "core.copy.json"

#: The id of a boot in a container that hides it; a process is then known by its pid and its start alone.
UNKNOWN_BOOT: Final = "unknown"

_MAX_BYTES: Final = 1024 * 1024
#: Each record is filled up to so many bytes, so that another one has room in its place.
_PADDED_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class CoreRecord:
    """What ``core.json`` says about a running core."""

    pid: int
    #: Start time of the process as the kernel counts it: clock ticks since boot.
    start_ticks: int
    boot_id: str
    config_hash: str
    kind: str
    #: Which core this is, as it names itself; "" in records of earlier versions.
    core: str = ""
    #: The ``log`` of its config, as JSON; "" in records of earlier versions.
    log: str = ""

    def is_of(self, other: CoreRecord) -> bool:
        """Whether this is a record of the same process."""
        return (self.pid, self.start_ticks, self.boot_id) == (other.pid, other.start_ticks, other.boot_id)


def write_record(run_dir: Path, record: CoreRecord) -> None:
    """Put the record in place as a whole, and a copy of it where that is possible. Raises OSError when it cannot be written."""
    content = json.dumps(asdict(record)).encode().ljust(_PADDED_BYTES)
    with contextlib.suppress(OSError):
        try:
            _write(run_dir / COPY_NAME, content)
        except OSError:
            # One that says what was before is worse than none.
            (run_dir / COPY_NAME).unlink()
    _write(run_dir / RECORD_NAME, content)


def _write(path: Path, content: bytes) -> None:
    try:
        # A core ends with the machine, so its record need not outlive a crash of it.
        write_atomically(path, content, durable=False)
    except OSError:
        # A full disk still lets a record be changed that is there, in its place.
        overwrite(path, content)


def read_records(run_dir: Path, *names: str) -> list[CoreRecord]:
    """Read the record and its copy, in this order; what is missing, or has not the right shape, is left out."""
    found = (_read(run_dir / name) for name in names or (RECORD_NAME, COPY_NAME))
    return list(dict.fromkeys(record for record in found if record is not None))


def read_record(run_dir: Path) -> CoreRecord | None:
    """Read the record, or its copy where it has not the right shape; None when there is neither."""
    return next(iter(read_records(run_dir)), None)


def _read(path: Path) -> CoreRecord | None:
    try:
        record = CoreRecord(**read_json(path, _MAX_BYTES))
    except (OSError, ValueError, TypeError):
        return None
    numbers = isinstance(record.pid, int) and isinstance(record.start_ticks, int) and record.pid > 1
    texts = all(
        isinstance(text, str) for text in (record.boot_id, record.config_hash, record.kind, record.core, record.log)
    )
    return record if numbers and texts else None


def start_ticks(pid: int) -> int:
    """Read the start time of a process in clock ticks since boot; 0 when it has gone.

    It is field 22 of ``/proc/pid/stat`` (proc(5)). Raises OSError when that cannot be read although it is there.
    """
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The command name, in parentheses, may hold spaces and parentheses itself.
    return int(content.rpartition(b")")[2].split()[19])


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Read the id that the kernel gave itself at its start; :data:`UNKNOWN_BOOT` where it does not tell."""
    try:
        return path.read_text(encoding="ascii").strip() or UNKNOWN_BOOT
    except (OSError, ValueError):
        return UNKNOWN_BOOT
