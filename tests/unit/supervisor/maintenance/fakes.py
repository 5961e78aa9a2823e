"""A node and a core for maintenance jobs: they note what they were asked for, and fail when they are told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from pgnode.errors import StartFailedError
from pgnode.xray.config.document import BaseConfig, parse_config
from pgnode.xray.process.base import Core
from pgnode.xray.process.executable import ExecutableCore

BASE: dict[str, object] = {
    "inbounds": [{"tag": "in", "protocol": "vless", "port": 8443, "settings": {"decryption": "none"}}],
    "outbounds": [{"protocol": "freedom"}],
}
GEO_BASE = {
    **BASE,
    "routing": {"rules": [{"type": "field", "ip": ["ext:geoip.dat:ir"], "outboundTag": "direct"}]},
    "outbounds": [{"protocol": "freedom", "tag": "direct"}],
}


def base_config(document: dict[str, object], assets_dir: Path | None = None) -> BaseConfig:
    """A config as a start takes it."""
    return parse_config(json.dumps(document), exclude_inbounds=(), api_socket="/run/x.sock", assets_dir=assets_dir)


class FakeNode:
    """Exchanges a core that is not there."""

    def __init__(self) -> None:
        self.core_lock = asyncio.Lock()
        self.running_base: BaseConfig | None = None
        self.core_base: BaseConfig | None = None
        #: Why the next new core does not come up.
        self.fails = ""
        self.log: list[str] = []

    async def exchange_core(
        self, change: Callable[[], Awaitable[None]], undo: Callable[[], Awaitable[None]], what: str
    ) -> bool:
        self.log.append(what)
        await change()
        if self.running_base is None:
            return False
        if self.fails:
            await undo()
            raise StartFailedError(self.fails)
        return True

    async def reset(self) -> None:
        self.log.append("reset")


class FakeCore:
    """Knows which core is selected, and what it says of configs."""

    def __init__(self) -> None:
        self.core: Core = ExecutableCore(Path("/usual/xray"))
        self.known_version = "26.10.10"
        self.checked: list[tuple[BaseConfig, Core | None]] = []
        #: Cores that were asked for their version, and those that cannot be run.
        self.asked: list[Core] = []
        self.broken: list[Core] = []
        #: Why configs are refused.
        self.refuses = ""

    async def version(self) -> str:
        self.asked.append(self.core)
        if self.core in self.broken:
            raise StartFailedError("no such program")
        return self.known_version

    def select(self, core: Core) -> None:
        self.core = core

    async def check(self, base: BaseConfig, other: Core | None = None) -> None:
        self.checked.append((base, other))
        if self.refuses:
            raise StartFailedError(self.refuses)
