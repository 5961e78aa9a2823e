"""The plainest config that a core runs with, and what one finds of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pgnode.testing.ports import free_port
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from tests.integration.xray.conftest import api_part


def plain_config(run_dir: Path, port: int | None = None, loglevel: str = "warning") -> dict[str, Any]:
    """One inbound that leads to nothing, at ``port`` or a free one."""
    inbound = {
        "tag": "in",
        "listen": "127.0.0.1",
        "port": port or free_port(),
        "protocol": "dokodemo-door",
        "settings": {"address": "127.0.0.1", "port": 9},
    }
    return {
        "log": {"loglevel": loglevel},
        "inbounds": [inbound],
        "outbounds": [{"protocol": "freedom", "tag": "out"}],
        **api_part(run_dir),
    }


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def text_of(path: str) -> str:
    """What a file says."""
    return Path(path).read_text()


async def kind_of(call: Any) -> ErrorKind | None:
    """What kind of error a call ends with; None where it succeeds."""
    try:
        await call
    except CoreApiError as error:
        return error.kind
    return None
