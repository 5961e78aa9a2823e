"""A server of releases and geo files on loopback, over HTTP and HTTPS, and a proxy in front of it: what a node downloads from.

Under ``/releases`` it has the layout of a project's GitHub releases. Files can be held back, sent slowly, or cut short.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import ssl
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pgnode.supervisor.maintenance.releases import asset_name
from tests.support import xray_command

#: Name that only the proxy knows; it is in the certificate.
PROXIED_HOST = "releases.example"


#: Pause after each byte of a slow file.
SLOW_SECONDS = 0.2


class ReleaseServer:
    """``async with ReleaseServer(certificate) as server:``; what it serves may be changed at any time."""

    def __init__(self, certificate: Path, key: Path, machine: str) -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        self._asset = asset_name(machine)
        #: Path -> content.
        self.files: dict[str, bytes] = {}
        #: Path -> where it redirects to.
        self.redirects: dict[str, str] = {}
        #: Paths of which a byte is sent now and then.
        self.slow: set[str] = set()
        #: Paths whose content comes once the event is set.
        self.held: dict[str, asyncio.Event] = {}
        #: Paths whose length is not told; of which only the half comes.
        self.unannounced: set[str] = set()
        self.cut: set[str] = set()
        #: Every path that was asked for, in order.
        self.requests: list[str] = []
        #: Hosts that the proxy was asked to connect to.
        self.proxied: list[str] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()

    async def __aenter__(self) -> ReleaseServer:
        for handler, tls in ((self._serve, None), (self._serve, self._tls), (self._proxy, None)):
            self._servers.append(await asyncio.start_server(handler, "127.0.0.1", 0, ssl=tls))
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        self._ending.set()
        for event in self.held.values():
            event.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def http_port(self) -> int:
        return self._port(0)

    @property
    def https_port(self) -> int:
        return self._port(1)

    @property
    def proxy_port(self) -> int:
        return self._port(2)

    def _port(self, number: int) -> int:
        return int(self._servers[number].sockets[0].getsockname()[1])

    def asset_path(self, version: str) -> str:
        return f"/releases/download/v{version}/{self._asset}"

    def release(self, version: str, members: Mapping[str, bytes] | None = None, *, digest: str | None = None) -> None:
        """Publish a version; by default its zip holds a core that works and says so. ``digest``: a wrong one."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            for name, content in (members if members is not None else good_release(version)).items():
                target.writestr(name, content)
        data = archive.getvalue()
        path = self.asset_path(version)
        self.files[path] = data
        lines = [
            f"{name}= {digest or hashlib.new(algorithm, data).hexdigest()}"
            for name, algorithm in (("MD5", "md5"), ("SHA1", "sha1"), ("SHA2-256", "sha256"), ("SHA2-512", "sha512"))
        ]
        self.files[f"{path}.dgst"] = ("\n".join(lines) + "\n").encode()

    def latest(self, version: str) -> None:
        self.redirects["/releases/latest"] = f"/releases/tag/v{version}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._note_task()
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, ssl.SSLError):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                self.requests.append(path)
                await self._answer(path, writer)
                await writer.drain()
        finally:
            await _close(writer)

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path in self.redirects:
            head = f"HTTP/1.1 302 Found\r\nlocation: {self.redirects[path]}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            writer.write(head.encode())
            return
        content = self.files.get(path)
        if content is None:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\nconnection: close\r\n\r\nnot found")
            return
        length = "" if path in self.unannounced else f"content-length: {len(content)}\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\n{length}connection: close\r\n\r\n".encode())
        await writer.drain()
        if path in self.held:
            await self.held[path].wait()
        if path in self.slow:
            for at in range(len(content)):
                writer.write(content[at : at + 1])
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), SLOW_SECONDS)
        writer.write(content[: len(content) // 2] if path in self.cut else content)

    async def _proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """CONNECT to any host leads to the HTTPS side."""
        self._note_task()
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
                head = await reader.readuntil(b"\r\n\r\n")
                method, host, _ = head.decode().split(" ", 2)
                assert method == "CONNECT"
                self.proxied.append(host)
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.https_port)
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                try:
                    await asyncio.gather(_pass_on(reader, there_writer), _pass_on(there_reader, writer))
                finally:
                    await _close(there_writer)
        finally:
            await _close(writer)

    def _note_task(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError, ssl.SSLError):
        async with asyncio.timeout(1):
            await writer.wait_closed()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()


def good_release(version: str, fault: xray_command.Fault = "none") -> dict[str, bytes]:
    """The members of a release's zip."""
    core = xray_command.source(version, fault).encode()
    return {"xray": core, "geoip.dat": b"not used", "LICENSE": b"MPL", "README.md": b"..."}
