"""TLS to Redis: what its files say is read once for all connections of a process, and again when one of them was replaced.

Reading the authorities that the system trusts takes 40 to 70 ms, in which nothing else is done. A node that is watched by
sentinels makes two or more connections for each one that it uses, some of them at once, so on a busy machine that alone kept it
from being connected in time.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from redis.asyncio.connection import RedisSSLContext, SSLConnection

#: What tells that a file is another one: its node, its size and its time.
Stamp = tuple[int, int, int] | None

#: Sets of files that are kept; a process has one, and for a moment a second one.
KEPT = 4

#: The arguments that a context is made of.
_ARGUMENTS = tuple(name for name in RedisSSLContext.__slots__ if name != "context")


class SharingTls(SSLConnection):
    """A connection over TLS that has its context in common with others of the same settings and files."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        own = self.ssl_context
        given = {name: getattr(own, name) for name in _ARGUMENTS}
        said = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in given.items())
        self.ssl_context = _shared(said, tuple(_stamp(path) for path in (own.keyfile, own.certfile, own.ca_certs)))


@functools.lru_cache(maxsize=KEPT)
def _shared(said: tuple[tuple[str, Any], ...], _stamps: tuple[Stamp, ...]) -> RedisSSLContext:
    """Return what makes a context when it is used first, and has it then."""
    return RedisSSLContext(**dict(said))


def _stamp(path: str | None) -> Stamp:
    if path is None:
        return None
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
