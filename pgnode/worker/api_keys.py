"""The API key as its file says now: a rotation is followed without a restart, and the key before it stays valid for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from pgnode.api.auth import ApiKeys
from pgnode.errors import SettingsError
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.beats import pause_to_beat
from pgnode.os_support.lasting import keep_going
from pgnode.settings.api_key import read_api_key
from pgnode.settings.handover import runs_alone
from pgnode.settings.previous_key import PreviousKey, previous_key_file, read_previous_key

if TYPE_CHECKING:
    from pgnode.settings.model import Settings

log = structlog.get_logger(__name__)

#: Seconds between two looks at the files.
CHECK_SECONDS = 1.0

#: Seconds in which one use of the previous key is told of.
WARN_SECONDS = 3600.0

_Signature = tuple[tuple[int, int, int], ...]


class KeyFollower:
    """Keeps the valid keys of this worker as the files say. Belongs to the worker's loop.

    Args:
        settings: Where the key is. With API_KEY there is no file, and nothing is followed.
        now: Seconds since 1970.
        check_seconds: Seconds between two looks at the files.

    Attributes:
        keys: The keys that are valid.

    Raises:
        SettingsError: There is no key, and none is told.
    """

    def __init__(
        self, settings: Settings, *, now: Callable[[], float] = time.time, check_seconds: float = CHECK_SECONDS
    ) -> None:
        self._settings = settings
        self._now = now
        self._check_seconds = check_seconds
        self._warned_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._refused = ""
        # Before the files are read, so that what changes meanwhile is found at the next look.
        self._seen = self._signature()
        self._previous: PreviousKey | None = None
        #: Whether there is no key here, and the supervisor, elsewhere, tells its digest.
        self.is_told = has_no_key(settings)
        if self.is_told:
            self._key = ""
            self.keys = ApiKeys(None, on_previous=self._previous_used)
            return
        self._key = read_api_key(settings)
        try:
            self._previous = read_previous_key(settings)
        except SettingsError as error:
            log.warning("the previous API key is not valid", error=str(error))
        self.keys = ApiKeys(self._key, self._valid_previous(), on_previous=self._previous_used)

    def __repr__(self) -> str:
        return f"KeyFollower({self.keys!r})"

    def start(self) -> None:
        """Follow the files from now on."""
        if self._settings.api_key is None and not self.is_told:
            self._task = asyncio.create_task(keep_going("API key", self._run))

    async def close(self) -> None:
        """Follow them no more."""
        if self._task is not None:
            await end_tasks([self._task])

    async def _run(self) -> None:
        while True:
            await pause_to_beat(self._check_seconds)
            self.take(await asyncio.to_thread(self.look))

    def look(self) -> tuple[str, PreviousKey | None] | None:
        """Look at the files; this may be done in a thread.

        Returns:
            What they say; None where nothing is new, or it cannot be used, which is told once.
        """
        signature = self._signature()
        if signature == self._seen:
            return None
        try:
            found = read_api_key(self._settings), read_previous_key(self._settings)
        except SettingsError as error:
            # They are looked at again: it may be that this process has no file left to open them with.
            if str(error) != self._refused:
                self._refused = str(error)
                log.warning("the API key was not read again, the one before stays", error=self._refused)
            return None
        self._seen, self._refused = signature, ""
        return found

    def take(self, found: tuple[str, PreviousKey | None] | None) -> None:
        """Take what a look found. A previous key whose time is over ends here, too.

        Args:
            found: What :meth:`look` returned.
        """
        if found is not None and found != (self._key, self._previous):
            if found[0] != self._key:
                log.info("new API key taken", audit="key", file=str(self._settings.key_file))
            if self._previous is not None and found[1] is None:
                log.info("the previous API key is not valid any more", audit="key")
            self._key, self._previous = found
            self._warned_at = None
        elif self._previous is None or self._previous.until.timestamp() > self._now():
            return
        else:
            log.info("the previous API key is not valid any more", audit="key", until=self._until())
            self._previous = None
        self.keys.replace(self._key, self._valid_previous())

    def _valid_previous(self) -> str | None:
        previous = self._previous
        return previous.key if previous is not None and previous.until.timestamp() > self._now() else None

    def _until(self) -> str:
        return f"{self._previous.until:%Y-%m-%d %H:%M} UTC" if self._previous is not None else ""

    def _previous_used(self) -> None:
        now = self._now()
        if self._warned_at is not None and 0 <= now - self._warned_at < WARN_SECONDS:
            return
        self._warned_at = now
        until = {"until": self._until()} if self._previous is not None else {}
        log.warning("a caller still uses the previous API key: give it the new one", **until)

    def _signature(self) -> _Signature:
        """Return what differs after a change."""
        return tuple(_stat(path) for path in (self._settings.key_file, previous_key_file(self._settings)))


def has_no_key(settings: Settings) -> bool:
    """Whether this is a worker without a supervisor beside it that was given no key."""
    return runs_alone() and settings.api_key is None and not settings.key_file.exists()


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)
