"""Files that the running core read when it started, and whether they are still the same.

A certificate that was renewed is to be served after the next start, though the config that names it is the same. A file counts
as changed when its size, times or inode changed, and then its content, too. What is known lies beside the core's record, for a
supervisor that takes the core over.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pgnode.os_support.files import read_json, write_atomically
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.named_files import Reader, files_of
from pgnode.xray.process.run_folder import FILES_NAME

#: Bytes of the largest file of notes that is read.
MAX_BYTES = 4 * 1024 * 1024

#: Larger files are not read: they count as changed when anything about them does.
DIGEST_BYTES_MAX = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one content of a file from another; zeros for a file that is not there."""

    size: int = 0
    mtime_ns: int = 0
    digest: str = ""
    #: A link may lead to another file of the same size and time.
    inode: int = 0
    ctime_ns: int = 0


def stamp(path: Path, known: Stamp | None = None) -> Stamp:
    """Look at a file; links are followed. Its content is read only where it is not the file of ``known``, untouched."""
    try:
        # Non-blocking, for a FIFO.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return Stamp()
            seen = (found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)
            if known is not None and (known.size, known.mtime_ns, known.inode, known.ctime_ns) == seen:
                return known
            digest = hashlib.file_digest(file, "sha256").hexdigest() if found.st_size <= DIGEST_BYTES_MAX else str(seen)
            return Stamp(found.st_size, found.st_mtime_ns, digest, found.st_ino, found.st_ctime_ns)
    except (OSError, ValueError):
        return Stamp()


class ReadFiles:
    """Belongs to the supervisor's loop.

    Args:
        run_dir: The core's folder.
        assets_dir: The folder of geo files.
        cert_dir: Says where the core looks for certificates with a relative path.
    """

    def __init__(
        self, run_dir: Path, assets_dir: Path | None, cert_dir: Callable[[], Path | None] = lambda: None
    ) -> None:
        self._path = run_dir / FILES_NAME
        self._assets_dir = assets_dir
        self._cert_dir = cert_dir
        self._stamps: dict[str, Stamp] = {}

    def __repr__(self) -> str:
        return f"ReadFiles({len(self._stamps)} files)"

    async def note(self, base: BaseConfig) -> None:
        """Take note of the files of a config that a core is about to read, or has read again."""
        await asyncio.to_thread(self._note, base)

    async def save(self) -> None:
        """Keep what was noted for a supervisor that takes the core over; without it, that takes the files for unchanged."""
        await asyncio.to_thread(self._save)

    async def recall(self, base: BaseConfig) -> None:
        """Take over what was noted about a core that an earlier supervisor started; without it, the files are as they are now."""
        await asyncio.to_thread(self._recall, base)

    async def changed(self, base: BaseConfig) -> Mapping[Path, set[Reader]]:
        """Return the files of a config that are not what the running core read, with their readers."""
        return await asyncio.to_thread(self._changed, base)

    def _note(self, base: BaseConfig) -> None:
        paths = [str(path) for path in files_of(base.document, self._assets_dir, self._cert_dir())]
        self._stamps = {path: stamp(Path(path), self._stamps.get(path)) for path in paths}

    def _save(self) -> None:
        with contextlib.suppress(OSError):
            text = json.dumps({path: asdict(found) for path, found in self._stamps.items()})
            write_atomically(self._path, text, durable=False)

    def _recall(self, base: BaseConfig) -> None:
        try:
            content = read_json(self._path, MAX_BYTES)
            self._stamps = {str(path): Stamp(**found) for path, found in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._note(base)

    def _changed(self, base: BaseConfig) -> dict[Path, set[Reader]]:
        found: dict[Path, set[Reader]] = {}
        for path, readers in files_of(base.document, self._assets_dir, self._cert_dir()).items():
            known = self._stamps.get(str(path))
            # Whoever reads a file that is new to the core is new, too.
            if known is not None and stamp(path, known).digest != known.digest:
                found[path] = readers
        return found
