"""Whose prefix this is: two nodes that use one by mistake would take each other's commands, and answer for each other's users.

The supervisor holds a key that names it and ends by itself. A second one finds that key and refuses to start. Where the key was
lost with all else in Redis, and another node was quicker, the one that finds that out takes no further command. Whoever is
refused leaves its own name beside that key, so that both can say who the other one is.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from redis.asyncio import Redis

from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import OWNER_TTL_MS, Keys
from pgnode.errors import PrefixInUseError
from pgnode.os_support.host_name import host_name

log = structlog.get_logger(__name__)

#: Seconds between two renewals of the key.
RENEW_SECONDS: Final = OWNER_TTL_MS / 5000

#: Seconds between two looks whether the owner before is still there.
WAIT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Owner:
    """A node, as it is named in Redis."""

    #: The same for every process of this node, and after its restart.
    identity: str
    #: What a person needs to find it.
    description: str

    def encode(self) -> bytes:
        """Return it as it is stored."""
        return f"{self.identity}\n{self.description}".encode(errors="replace")


def decode_owner(data: bytes | str) -> Owner:
    """Read what :meth:`Owner.encode` made; whatever else is there is somebody, too."""
    text = data if isinstance(data, str) else data.decode(errors="replace")
    identity, _, description = text.partition("\n")
    return Owner(identity, description or "unknown")


def this_node(state_dir: Path) -> Owner:
    """Name this node: by its host, and by its folder there, which only one node can hold.

    Args:
        state_dir: The node's folder.

    Returns:
        The node; its identity is the same in all of its processes on this host.

    Raises:
        OSError: There is no such folder.
    """
    found = state_dir.stat()
    host = host_name()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    name = f"{host}\n{boot}\n{found.st_dev}\n{found.st_ino}"
    identity = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:32]
    return Owner(identity, f"host {host}, pid {os.getpid()}, STATE_DIR={state_dir}")


class PrefixOwnership:
    """Holds the prefix for one supervisor. Belongs to its loop.

    Args:
        redis: The bus.
        keys: Its keys.
        owner: This node.
        renew_seconds: Seconds between two renewals.
        wait_seconds: Seconds between two looks at the start.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        owner: Owner,
        *,
        renew_seconds: float = RENEW_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._owner = owner
        self._renew_seconds = renew_seconds
        self._wait_seconds = wait_seconds
        self._other: Owner | None = None
        self._rival: Owner | None = None

    def __repr__(self) -> str:
        return f"PrefixOwnership({self._keys.prefix}, {'ours' if self.is_ours() else self._other})"

    def is_ours(self) -> bool:
        """Return whether nobody else is known to have the prefix."""
        return self._other is None

    async def acquire(self) -> None:
        """Take the prefix; wait for the end of a key that nobody renews.

        Raises:
            PrefixInUseError: Another node has it.
        """
        try:
            await self._wait_for_it()
        except BUS_ERRORS as error:
            # It went away again; what keeps the prefix takes it when it is back.
            log.debug("prefix not taken yet", error=str(error))

    async def _wait_for_it(self) -> None:
        left_before = 0
        while (other := await self._claim()) is not None:
            left = await self._redis.pttl(self._keys.owner)
            # A key that lives longer than a moment ago was renewed; one without an end is nobody's of ours.
            if left == -1 or left > left_before > 0:
                raise PrefixInUseError(
                    f"REDIS_PREFIX={self._keys.prefix} is used by another node ({other.description}): give this one a prefix "
                    "of its own, or end the other one"
                )
            left_before = left
            await asyncio.sleep(self._wait_seconds)

    async def keep(self) -> None:
        """Renew the key until cancelled; say so when somebody else has it, and when it is ours again."""
        while True:
            try:
                other = await self._claim()
            except BUS_ERRORS as error:
                log.debug("prefix not renewed", error=str(error))
            else:
                if other is not None and self._other is None:
                    log.error(
                        "another node uses this REDIS_PREFIX: no command is taken until it ends",
                        prefix=self._keys.prefix,
                        other=other.description,
                    )
                elif other is None and self._other is not None:
                    log.info("the REDIS_PREFIX is this node's again", prefix=self._keys.prefix)
                self._other = other
                await self._look_for_rival()
            await asyncio.sleep(self._renew_seconds)

    async def _look_for_rival(self) -> None:
        """Say so when another node was refused this prefix."""
        try:
            held = await self._redis.get(self._keys.rival) if self._other is None else None
        except BUS_ERRORS as error:
            log.debug("no look for others with this prefix", error=str(error))
            return
        rival = decode_owner(held) if held is not None else None
        if rival is not None and rival.identity == self._owner.identity:
            rival = None
        if rival is not None and (self._rival is None or self._rival.identity != rival.identity):
            log.error(
                "another node has this REDIS_PREFIX, too, and was refused: give one of them another",
                prefix=self._keys.prefix,
                other=rival.description,
            )
        self._rival = rival

    async def release(self) -> None:
        """Let go of the prefix, so that another node need not wait."""
        try:
            held = await self._redis.get(self._keys.owner)
            if held is not None and decode_owner(held).identity == self._owner.identity:
                await self._redis.delete(self._keys.owner)
        except BUS_ERRORS as error:
            log.debug("prefix not released", error=str(error))

    async def _claim(self) -> Owner | None:
        """Take or renew the key; return who has it instead."""
        data = self._owner.encode()
        if await self._redis.set(self._keys.owner, data, px=OWNER_TTL_MS, nx=True):
            return None
        held = await self._redis.get(self._keys.owner)
        if held is not None and (holder := decode_owner(held)).identity != self._owner.identity:
            await self._redis.set(self._keys.rival, data, px=OWNER_TTL_MS)
            return holder
        await self._redis.set(self._keys.owner, data, px=OWNER_TTL_MS)
        return None
