"""Files about what a core runs: one beside it for the next supervisor, one for the operator. Both are best effort."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from pgnode.os_support.files import read_regular, write_atomically
from pgnode.xray.process.run_folder import SPEC_NAME

log = structlog.get_logger(__name__)

#: Bytes of the largest file about what a core runs that is read.
SPEC_MAX_BYTES = 256 * 1024 * 1024


async def keep(run_dir: Path, encode: Callable[[], bytes]) -> None:
    """Write beside a core what it runs.

    Args:
        run_dir: The core's folder.
        encode: Makes the content, in another thread.
    """
    path = run_dir / SPEC_NAME

    def write() -> None:
        write_atomically(path, encode(), durable=False)

    try:
        await asyncio.to_thread(write)
    except OSError as error:
        log.warning("what the core runs is not kept beside it", path=str(path), error=error.strerror)


async def kept(run_dir: Path) -> bytes:
    """Read what :func:`keep` wrote; empty where that is not possible."""
    try:
        return await asyncio.to_thread(read_regular, run_dir / SPEC_NAME, SPEC_MAX_BYTES)
    except OSError:
        return b""


async def write_copy(path: Path | None, config_json: str) -> None:
    """Write the config that a core runs where the operator wants a copy of it.

    Args:
        path: GENERATED_CONFIG_PATH, a file or a folder; None for no copy.
        config_json: The config with its users.
    """
    if path is None:
        return
    try:
        await asyncio.to_thread(_write_private, path, config_json)
    except OSError as error:
        log.warning("GENERATED_CONFIG_PATH not written", path=str(path), error=error.strerror)


def _write_private(path: Path, text: str) -> None:
    target = path / "config.json" if path.is_dir() else path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch(mode=0o600)
    target.write_text(text, encoding="utf-8")
