"""The audit trail: who changed what about the node, and when. A file of JSON lines that bounds itself.

What belongs there is said where it happens: an event of the log with the field :data:`FIELD`. The supervisor writes what it and
its workers say, whatever the level of the log is; a command of an operator writes its own line.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from pgnode.os_support.bounded_files import append
from pgnode.os_support.log_lines import Entry, json_line

log = structlog.get_logger(__name__)

#: The field that makes a line of the log one of the trail; its value says what it is about.
FIELD: Final = "audit"

#: The size at which the file is set aside; three such are kept.
MAX_BYTES: Final = 4 * 1024 * 1024

#: Lines that wait for a slow disk at most.
WAITING_MAX: Final = 1_000

#: Seconds that waiting lines get at the end.
DRAIN_SECONDS: Final = 1.0


def append_entry(path: Path, entry: Entry, owner: tuple[int, int] | None = None) -> None:
    """Write one line, and wait for that.

    Args:
        path: The file.
        entry: What happened.
        owner: User and group of a file that is made; None for this process's.

    Raises:
        OSError: It cannot be written.
    """
    append(path, f"{json_line(entry)}\n".encode(), MAX_BYTES, owner=owner)


class AuditTrail:
    """Writes lines in a thread of its own, so that a disk that hangs holds nobody up.

    Args:
        path: The file; None: nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._waiting: deque[Entry] = deque()
        self._writing = False
        self._thread: threading.Thread | None = None
        #: Lines that were not written.
        self.dropped = 0
        #: Why the last line was not written; "" where it was.
        self.error = ""
        self._told = False
        atexit.register(self.drain)

    def __repr__(self) -> str:
        return f"AuditTrail({self._path}, {len(self._waiting)} waiting, {self.dropped} dropped)"

    def note(self, entry: Entry) -> None:
        """Take a line of the log; it is written if it belongs to the trail.

        Args:
            entry: What a process of the node says.
        """
        if FIELD not in entry.fields or self._path is None:
            return
        self._tell()
        with self._changed:
            if len(self._waiting) >= WAITING_MAX:
                self._drop("the disk is too slow")
                return
            self._waiting.append(entry)
            if self._thread is None:
                # A thread that hangs in a write must not keep the process from its end.
                self._thread = threading.Thread(target=self._run, args=(self._path,), name="audit", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    self._thread = None
                    self._waiting.clear()
                    self._drop("there is no thread to be had")
            self._changed.notify_all()

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until all is written.

        Args:
            seconds: How long at most.

        Returns:
            Whether it is.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._writing, seconds)

    def _tell(self) -> None:
        """Say once that lines are not written, and again after some were."""
        error, self._told = self.error, bool(self.error) and self._told
        if error and not self._told:
            self._told = True
            log.warning("audit trail not written", file=str(self._path), error=error, lost=self.dropped)

    def _drop(self, error: str) -> None:
        self.dropped += 1
        self.error = error

    def _run(self, path: Path) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                entry, self._writing = self._waiting.popleft(), True
            error = ""
            try:
                append_entry(path, entry)
            except OSError as failed:
                error = failed.strerror or str(failed)
            with self._changed:
                self._writing = False
                if error:
                    self._drop(error)
                else:
                    self.error = ""
                self._changed.notify_all()


def operator_fields(uid: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """Say who an operator is.

    Args:
        uid: The user that runs a command.
        environment: Of the command: sudo says there who asked for it.

    Returns:
        The fields of a line.
    """
    asked = environment.get("SUDO_UID", "")
    return {"uid": uid, **({"sudo_uid": int(asked)} if uid == 0 and asked.isdecimal() else {})}
