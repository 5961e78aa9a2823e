"""The cores that were downloaded, in STATE_DIR/cores, and which of them the operator selected.

``<version>/xray`` is a core, ``chosen.json`` the selection: its version, the SHA-256 of the executable, the versions that are
kept (the last two), and what XRAY_EXECUTABLE_PATH was at the time. ``coming.json`` is there while the core is exchanged for
another: it names that one. The later decision counts: a core selected over the API is
used in place of XRAY_EXECUTABLE_PATH until that setting is changed. Everything here does file I/O: call it in a thread.
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog

from pgnode.errors import UpdateFailedError
from pgnode.os_support.fault_points import fault_point
from pgnode.os_support.files import read_json, write_atomically
from pgnode.supervisor.maintenance.releases import MEMBER

log = structlog.get_logger(__name__)

_RECORD: Final = "chosen.json"
_COMING: Final = "coming.json"
_RECORD_BYTES: Final = 64 * 1024
_STAGING: Final = "incoming"
_BLOCK_BYTES: Final = 1024 * 1024
_VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)

#: Cores that are kept: the selected one, and the one before.
KEPT: Final = 2


@dataclass(frozen=True, slots=True)
class CoreSelection:
    """What ``chosen.json`` says."""

    version: str
    sha256: str
    #: Versions in the folder, the one selected last first.
    kept: list[str]
    #: XRAY_EXECUTABLE_PATH when it was selected, "" when that was unset.
    instead_of: str


class CoreStore:
    """The folder of cores. One per node.

    Args:
        state_dir: The node's state folder.
        executable_setting: XRAY_EXECUTABLE_PATH.
        max_bytes: Size of the largest executable that is unpacked.
    """

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
        """Return where the executable of a version is kept, whether it is there or not."""
        return self._folder / version / MEMBER

    def clean(self) -> None:
        """Make an empty staging folder; what an interrupted job left is removed."""
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(mode=0o700, parents=True)

    def drop_staging(self) -> None:
        """Remove the staging folder."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def selected(self) -> Path | None:
        """Return the executable that the operator selected, None when none is selected (any more)."""
        selection = self._read()
        if selection is None:
            return None
        if selection.instead_of != self._setting:
            log.info("selected core not used: XRAY_EXECUTABLE_PATH was set later", version=selection.version)
            return None
        path = self.path_of(selection.version)
        if not (path.is_file() and os.access(path, os.X_OK)):
            log.warning("selected core is missing", path=str(path))
            return None
        return path

    def unpack(self, archive: Path) -> Path:
        """Unpack the executable of a release into the staging folder.

        No name in the zip is ever used as a path, so none can lead anywhere else.

        Args:
            archive: The release's zip.

        Returns:
            The executable.

        Raises:
            UpdateFailedError: The zip is damaged, has no core in it, or one that is too large.
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
        """Move the staged executable to where its version is kept, and return that."""
        path = self.path_of(version)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A core that runs from there goes on: its open file stays.
        (self.staging / MEMBER).replace(path)
        return path

    def kept(self, version: str) -> Path | None:
        """Return the executable of a version that is still here and was not changed; None otherwise."""
        selection = self._read()
        path = self.path_of(version)
        if selection is None or version not in selection.kept or not path.is_file():
            return None
        recorded = path.with_name("sha256")
        with contextlib.suppress(OSError):
            if recorded.read_text(encoding="ascii").strip() == _sha256(path):
                return path
        return None

    def begin(self, version: str) -> None:
        """Note that the core is about to be exchanged for this one, until :meth:`select` or :meth:`give_up`."""
        coming = {"version": version, "sha256": _sha256(self.path_of(version)), "instead_of": self._setting}
        write_atomically(self._folder / _COMING, json.dumps(coming) + "\n")

    def begun(self) -> str | None:
        """Return the version for which the core was being exchanged when the supervisor ended; None where it was not.

        Also None where that core was changed, or XRAY_EXECUTABLE_PATH was: that is the later decision.
        """
        try:
            coming = read_json(self._folder / _COMING, _RECORD_BYTES)
            version, digest = coming["version"], coming["sha256"]
            if not _VERSION.fullmatch(version) or coming["instead_of"] != self._setting:
                return None
            return str(version) if _sha256(self.path_of(version)) == digest else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("the note of a core update cannot be read", folder=str(self._folder), error=str(error))
            return None

    def give_up(self, version: str | None = None) -> None:
        """Forget that the core was being exchanged, and the version where one is named and it is not selected."""
        if version is not None:
            self.forget_unselected(version)
        (self._folder / _COMING).unlink(missing_ok=True)

    def clear_up(self) -> None:
        """Remove what an update left that was interrupted: what was being downloaded, and cores that were not selected."""
        self.drop_staging()
        selection, coming = self._read(), self.begun()
        if selection is None and os.path.lexists(self._folder / _RECORD):
            # Nobody knows which of them are wanted.
            return
        self._remove_all_but([*(selection.kept if selection is not None else []), coming])

    def select(self, version: str) -> None:
        """Record which core is selected, and remove all but the last two."""
        path = self.path_of(version)
        digest = _sha256(path)
        write_atomically(path.with_name("sha256"), digest + "\n")
        fault_point("core_select.half_done")
        before = self._read()
        kept = [version, *(v for v in (before.kept if before is not None else []) if v != version)][:KEPT]
        selection = CoreSelection(version, digest, kept, self._setting)
        write_atomically(self._folder / _RECORD, json.dumps(asdict(selection), indent=1) + "\n")
        self.give_up()
        self._remove_all_but([*kept, _STAGING])

    def forget_unselected(self, version: str) -> None:
        """Remove a core that was moved into the folder and then not selected."""
        selection = self._read()
        if selection is None or version not in selection.kept:
            shutil.rmtree(self._folder / version, ignore_errors=True)

    def _remove_all_but(self, kept: Sequence[str | None]) -> None:
        with contextlib.suppress(FileNotFoundError):
            for entry in self._folder.iterdir():
                if entry.is_dir() and entry.name not in kept:
                    shutil.rmtree(entry, ignore_errors=True)

    def _read(self) -> CoreSelection | None:
        try:
            selection = CoreSelection(**read_json(self._folder / _RECORD, _RECORD_BYTES))
            texts = [selection.version, *selection.kept]
            if not all(isinstance(text, str) and _VERSION.fullmatch(text) for text in texts):
                raise ValueError("no version")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.warning("core selection not readable", folder=str(self._folder), error=str(error))
            return None
        return selection

    def _too_large(self, size: int) -> str:
        return (
            f"the core in the release's zip is too large: {size} bytes or more, allowed are {self._max_bytes}; "
            "raise DOWNLOAD_MAX_MIB"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
