"""The cores that were downloaded, in STATE_DIR/cores, and which of them the operator chose.

``<version>/xray`` is a core, ``chosen.json`` the choice: its version, the SHA-256 of the executable, the versions that are kept
(the last two), and what XRAY_EXECUTABLE_PATH was at the time. The later decision counts: a choice made over the API wins over
XRAY_EXECUTABLE_PATH until that is set to something else. Everything here does file I/O: call it in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog

from pgnode.errors import UpdateFailedError
from pgnode.os_support.files import write_atomically
from pgnode.supervisor.maintenance.releases import MEMBER

log = structlog.get_logger(__name__)

_RECORD: Final = "chosen.json"
_STAGING: Final = "incoming"
_BLOCK_BYTES: Final = 1024 * 1024
_VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)

#: Cores that are kept: the chosen one, and the one before.
KEPT: Final = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """What ``chosen.json`` says."""

    version: str
    sha256: str
    #: Versions in the folder, the newest choice first.
    kept: list[str]
    #: XRAY_EXECUTABLE_PATH when the choice was made, "" when it was unset.
    instead_of: str


class CoreStore:
    """One per node."""

    def __init__(self, state_dir: Path, executable_setting: Path | None, max_bytes: int) -> None:
        self._folder = state_dir / "cores"
        self._setting = "" if executable_setting is None else str(executable_setting)
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"CoreStore({self._folder})"

    @property
    def staging(self) -> Path:
        """Where a job puts what it downloads; emptied by :meth:`clean`."""
        return self._folder / _STAGING

    def path_of(self, version: str) -> Path:
        return self._folder / version / MEMBER

    def clean(self) -> None:
        """An empty staging folder: what a job that was broken off left is gone."""
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(mode=0o700, parents=True)

    def drop_staging(self) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)

    def chosen(self) -> Path | None:
        """The executable that the operator chose, None when there is no choice (any more)."""
        choice = self._read()
        if choice is None:
            return None
        if choice.instead_of != self._setting:
            log.info("the chosen core is left alone: XRAY_EXECUTABLE_PATH was set later", version=choice.version)
            return None
        path = self.path_of(choice.version)
        if not (path.is_file() and os.access(path, os.X_OK)):
            log.warning("the chosen core is not there any more", path=str(path))
            return None
        return path

    def unpack(self, archive: Path) -> Path:
        """The executable out of a release's zip, in the staging folder. Raises UpdateFailedError.

        No name of the zip is ever used as a path, so none can lead anywhere else.
        """
        target = self.staging / MEMBER
        try:
            with zipfile.ZipFile(archive) as found:
                info = found.getinfo(MEMBER)
                if info.file_size > self._max_bytes:
                    raise UpdateFailedError(self._too_large(info.file_size))
                size = 0
                with found.open(info) as source, target.open("wb") as out:
                    while block := source.read(_BLOCK_BYTES):
                        size += len(block)
                        if size > self._max_bytes:
                            raise UpdateFailedError(self._too_large(size))
                        out.write(block)
                    out.flush()
                    os.fsync(out.fileno())
        except KeyError:
            raise UpdateFailedError(f"the release's zip holds no '{MEMBER}'") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise UpdateFailedError(f"the release's zip cannot be unpacked: {error}") from None
        target.chmod(0o700)
        return target

    def take_over(self, version: str) -> Path:
        """Move the staged executable to its version's place, and return that."""
        path = self.path_of(version)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A core that runs from there keeps its file.
        (self.staging / MEMBER).replace(path)
        return path

    def kept(self, version: str) -> Path | None:
        """The executable of a version that is still here and is what it was; None otherwise."""
        choice = self._read()
        path = self.path_of(version)
        if choice is None or version not in choice.kept or not path.is_file():
            return None
        recorded = path.with_name("sha256")
        with contextlib.suppress(OSError):
            if recorded.read_text(encoding="ascii").strip() == _sha256(path):
                return path
        return None

    def choose(self, version: str) -> None:
        """Record the choice, and remove all but the last two cores."""
        path = self.path_of(version)
        digest = _sha256(path)
        write_atomically(path.with_name("sha256"), digest + "\n")
        before = self._read()
        kept = [version, *(v for v in (before.kept if before is not None else []) if v != version)][:KEPT]
        write_atomically(
            self._folder / _RECORD, json.dumps(asdict(Choice(version, digest, kept, self._setting)), indent=1) + "\n"
        )
        for entry in self._folder.iterdir():
            if entry.is_dir() and entry.name not in (*kept, _STAGING):
                shutil.rmtree(entry, ignore_errors=True)

    def forget_unchosen(self, version: str) -> None:
        """Remove a core that was taken over and then not chosen."""
        choice = self._read()
        if choice is None or version not in choice.kept:
            shutil.rmtree(self._folder / version, ignore_errors=True)

    def _read(self) -> Choice | None:
        try:
            choice = Choice(**json.loads((self._folder / _RECORD).read_text(encoding="utf-8")))
            texts = [choice.version, *choice.kept]
            if not all(isinstance(text, str) and _VERSION.fullmatch(text) for text in texts):
                raise ValueError("no version")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.warning("the record of the chosen core cannot be read", folder=str(self._folder), error=str(error))
            return None
        return choice

    def _too_large(self, size: int) -> str:
        return (
            f"the core in the release's zip is too large: {size} bytes or more, allowed are {self._max_bytes}; "
            "raise DOWNLOAD_MAX_MIB"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
