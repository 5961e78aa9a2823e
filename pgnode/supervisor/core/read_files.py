"""Files that the running core read when it started, and whether they are still the same.

A certificate that was renewed is to be served after the next start, though the config that names it is the same. A file counts
as changed when its size or its time changed, and then its content, too. What is known lies beside the core's record, for a
supervisor that takes the core over.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pgnode.os_support.files import read_json, write_atomically
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.named_files import Reader, files_of
from pgnode.xray.process.run_folder import FILES_NAME

#: Bytes of the largest file of notes that is read.
MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one content of a file from another; zeros for a file that is not there."""

    size: int = 0
    mtime_ns: int = 0
    digest: str = ""


def stamp(path: Path, known: Stamp | None = None) -> Stamp:
    """Look at a file. Its content is read only where size or time are not those of ``known``."""
    try:
        found = path.stat()
        if known is not None and (known.size, known.mtime_ns) == (found.st_size, found.st_mtime_ns):
            return known
        with path.open("rb") as file:
            return Stamp(found.st_size, found.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError:
        return Stamp()


class ReadFiles:
    """Belongs to the supervisor's loop.

    Args:
        run_dir: The core's folder.
        assets_dir: The folder of geo files.
    """

    def __init__(self, run_dir: Path, assets_dir: Path | None) -> None:
        self._path = run_dir / FILES_NAME
        self._assets_dir = assets_dir
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
        paths = [str(path) for path in files_of(base.document, self._assets_dir)]
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
        for path, readers in files_of(base.document, self._assets_dir).items():
            known = self._stamps.get(str(path))
            # Whoever reads a file that is new to the core is new, too.
            if known is not None and stamp(path, known).digest != known.digest:
                found[path] = readers
        return found
