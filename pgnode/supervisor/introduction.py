"""What a supervisor says of itself to its workers: version, protocol of the bus, and digests of the API keys.

Workers on other hosts need no copy of the key: they compare what a caller sends with the digest, and follow a rotation as soon
as it is here. A digest opens nothing; a key that the node made cannot be found from it. It is told where REDIS_URL is set.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import structlog

from pgnode import __version__
from pgnode.bus.protocol import Hello
from pgnode.bus.snapshots import SUPERVISOR
from pgnode.errors import SettingsError
from pgnode.settings import read_api_key
from pgnode.settings.previous_key import read_previous_key

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds between two looks at the keys.
CHECK_SECONDS: Final = 1.0

Publish = Callable[[Mapping[str, bytes]], Awaitable[object]]


def digest_of(key: str) -> str:
    """Return what workers compare keys with."""
    return sha256(key.encode()).hexdigest()


class Introduction:
    """Belongs to the supervisor's loop.

    Args:
        settings: Where the keys are.
        publish: Publishes snapshots.
        now: Seconds since 1970, of this host: how long the previous key is valid is told as a time from now.
        check_seconds: Seconds between two looks.
    """

    def __init__(
        self,
        settings: Settings,
        publish: Publish,
        *,
        now: Callable[[], float] = time.time,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._settings = settings
        self._publish = publish
        self._now = now
        self._check_seconds = check_seconds
        self._told: tuple[str, str] | None = None
        self._refused = ""

    def __repr__(self) -> str:
        return f"Introduction({'told' if self._told is not None else 'not told yet'})"

    async def run(self) -> None:
        """Say it, and say it again when a key is another one; until cancelled."""
        while True:
            await self.tell()
            await asyncio.sleep(self._check_seconds)

    async def tell(self) -> None:
        """Say it, unless it was said."""
        hello = (
            await asyncio.to_thread(self._hello) if self._settings.redis_url is not None else Hello(version=__version__)
        )
        if hello is not None and (hello.key, hello.previous) != self._told:
            self._told = (hello.key, hello.previous)
            await self._publish({SUPERVISOR: hello.encode()})

    def _hello(self) -> Hello | None:
        """Look at the keys; None where they cannot be read now, which is told once."""
        try:
            key, previous = read_api_key(self._settings), read_previous_key(self._settings)
        except SettingsError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                log.warning("workers elsewhere are not told of a new API key", error=self._refused)
            return None
        self._refused = ""
        left = previous.until.timestamp() - self._now() if previous is not None else 0.0
        if previous is None or left <= 0:
            return Hello(version=__version__, key=digest_of(key))
        return Hello(
            version=__version__, key=digest_of(key), previous=digest_of(previous.key), previous_ms=int(left * 1000)
        )
