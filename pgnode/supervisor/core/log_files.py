"""Log files that a panel's config names: where they may be, and how they are written.

A panel's key is no key to every file of the node's user. So these files are below LOG_DIR, or where the operator allows it
(LOG_PATHS), never behind a link, and never anything but a plain file: a FIFO without a reader would hold up the log for ever.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pgnode.os_support.bounded_files import append
from pgnode.os_support.line_blocks import pieces
from pgnode.wire.texts import control_character, shown
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.strings import named, strings

if TYPE_CHECKING:
    from pgnode.settings import Settings

#: Ends of places, in small letters: the core minds no capitals.
_KEY_LOG: Final = ".masterkeylog"
_FOLDER: Final = ".xdrivesettings.remotefolder"
_SERVICE: Final = ".xdrivesettings.service"

#: Bytes that are written at once where a file has a bound, at most, unless it is a single line.
PART_BYTES = 64 * 1024


class LogFiles:
    """Knows where log files may be.

    Args:
        folder: The folder of log files; relative paths are below it.
        allowed: Other folders and files that an operator allows.
    """

    def __init__(self, folder: Path, allowed: Sequence[Path] = ()) -> None:
        self._folder = folder
        self._allowed = tuple(allowed)

    def __repr__(self) -> str:
        return f"LogFiles({self._folder}, {self._allowed})"

    @classmethod
    def of(cls, settings: Settings) -> LogFiles:
        """Of a node with these settings."""
        return cls(settings.log_folder, settings.allowed_log_paths)

    def config_fault(self, base: BaseConfig) -> str | None:
        """Say which log path of a config is not allowed, or None. Looks at files, so not to be called on the loop."""
        paths = [("log.access", base.access_log_path, False), ("log.error", base.error_log_path, False)]
        document, numbers = base.document, base.numbers.of(base.document)
        texts = list(strings(document))
        # Other services keep the files elsewhere.
        local = {place.lower() for place, text in texts if text.lower() == "local"}
        # What the core writes itself, where a config asks for it: the keys of connections, and what a transport by files moves.
        by_core = [
            (named(document, place, numbers), text, not place.lower().endswith(_KEY_LOG))
            for place, text in texts
            if place.lower().endswith(_KEY_LOG)
            or (place.lower().endswith(_FOLDER) and place.lower().removesuffix(_FOLDER) + _SERVICE in local)
        ]
        for name, text, _ in by_core:
            if text and text != "none" and not text.startswith("/"):
                return f"{name} {shown(text)} is no whole path, and the core writes it itself: give one below {self._folder}"
        for name, path, is_folder in [*paths, *by_core]:
            fault = self.fault(path, is_folder=is_folder) if path and path != "none" else None
            if fault is not None:
                return f"{name} {fault}"
        return None

    def fault(self, path: str, *, is_folder: bool = False) -> str | None:
        """Say why a path may not be written, or None.

        Args:
            path: The path.
            is_folder: It is to be a folder.

        Returns:
            What is to stand behind the name of its place.
        """
        found = control_character(path)
        if found is not None:
            return f"{shown(path)} holds the control character {found!r}"
        place = self._place(path)
        # Links are followed in the folder only: the file itself must be none.
        real = Path(os.path.realpath(place.parent)) / place.name
        roots = [Path(os.path.realpath(root)) for root in (self._folder, *self._allowed)]
        if not any(real == root or root in real.parents for root in roots):
            return f"{shown(path)} is not below {self._folder}: choose a path there, or let the operator name it in LOG_PATHS"
        with contextlib.suppress(OSError):
            is_kind = stat.S_ISDIR if is_folder else stat.S_ISREG
            if not is_kind(os.lstat(place).st_mode):
                return f"{shown(path)} is no {'folder' if is_folder else 'plain file'}"
        return None

    def place(self, path: str | None) -> str | None:
        """Return where a log file is to be written; None where there is none, or where it may not be."""
        return None if path is None or self.fault(path) is not None else str(self._place(path))

    def _place(self, path: str) -> Path:
        return Path(os.path.normpath(self._folder / path))


def append_lines(path: Path, data: bytes, max_bytes: int = 0) -> None:
    """Add lines to a log file, which is made where it is missing.

    Args:
        path: The file.
        data: The lines, with a line feed between two.
        max_bytes: The size at which it is set aside and another one begun; 0: it grows.

    Raises:
        OSError: That cannot be; it may be a link, a device, a FIFO or a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Small ones fill a file nearly to its bound.
    for part in pieces(data, min(max_bytes - 1, PART_BYTES)) if max_bytes else (data,):
        append(path, part + b"\n", max_bytes)
