"""wireguard-go, where the machine has it: an interface of its own kind, as a user has it or as a server beside the node.

It needs root, ``/dev/net/tun`` and the program ``ip``. The interface is told what it has to know over wireguard-go's own socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgnode.testing.ports import free_port
from pgnode.testing.wireguard import private_key
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.peers import key_hex

#: Where wireguard-go puts its sockets.
SOCKETS = Path("/var/run/wireguard")
_READY_SECONDS = 10.0
_POLL_SECONDS = 0.02


class WireguardGoError(Exception):
    """It did not start, or did not take its configuration."""


def missing() -> str:
    """Say what this machine lacks for it; "" for nothing."""
    lacking = [name for name in ("wireguard-go", "ip") if shutil.which(name) is None]
    if not Path("/dev/net/tun").exists():
        lacking.append("/dev/net/tun")
    if os.geteuid() != 0:
        lacking.append("root")
    return ", ".join(lacking)


class WireguardGo:
    """One interface.

    Args:
        name: The interface's, 15 characters at most.
        config: For a server, as a panel sends it.
        sockets: Where wireguard-go puts its socket.
    """

    def __init__(self, name: str, config: Mapping[str, Any] | None = None, *, sockets: Path = SOCKETS) -> None:
        self.name = name
        self.config = dict(config or {})
        self._sockets = sockets
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid if self._process is not None else 0

    @classmethod
    @contextlib.asynccontextmanager
    async def server(
        cls, config: Mapping[str, Any], users: Iterable[pb.User], address: str, *, sockets: Path = SOCKETS
    ) -> AsyncIterator[WireguardGo]:
        """Run the server that a panel's config describes.

        Args:
            config: As :func:`pgnode.testing.wireguard.interface` makes it.
            users: Who gets in.
            address: That of the interface, with its length.
            sockets: Where wireguard-go puts its socket.

        Yields:
            The server; its device is there, and leads to the users.
        """
        port = free_port()
        lines = [f"private_key={key_hex(config['private_key'])}", f"listen_port={port}"]
        networks: list[str] = []
        for user in users:
            lines += [
                f"public_key={key_hex(user.proxies.wireguard.public_key)}",
                f"preshared_key={key_hex(config['pre_shared_key'])}",
            ]
            lines += [f"allowed_ip={item}" for item in user.proxies.wireguard.peer_ips]
            networks += user.proxies.wireguard.peer_ips
        made = cls(f"pgs{port}", {**config, "listen_port": port}, sockets=sockets)
        async with made._up(lines, [address], networks) as running:
            yield running

    @classmethod
    @contextlib.asynccontextmanager
    async def client(
        cls, config: Mapping[str, Any], user: pb.User, target: str, *, key: str = "", sockets: Path = SOCKETS
    ) -> AsyncIterator[WireguardGo]:
        """Run the client of a user, through which an address is reached.

        Args:
            config: The server's, as a panel sends it.
            user: As :func:`pgnode.testing.wireguard.peer` makes it.
            target: What is reached through the tunnel, an IPv4 address.
            key: What the user's key was made from, its e-mail by default.
            sockets: Where wireguard-go puts its socket.

        Yields:
            The client; its device is there.
        """
        lines = [
            f"private_key={key_hex(private_key(key or user.email))}",
            f"public_key={key_hex(config['public_key'])}",
            f"endpoint=127.0.0.1:{config['listen_port']}",
            "allowed_ip=0.0.0.0/0",
        ]
        if "pre_shared_key" in config:
            lines.insert(2, f"preshared_key={key_hex(config['pre_shared_key'])}")
        own = [item for item in user.proxies.wireguard.peer_ips if ":" not in item]
        async with cls(f"pgc{free_port()}", sockets=sockets)._up(lines, own, [f"{target}/32"]) as running:
            yield running

    @contextlib.asynccontextmanager
    async def _up(
        self, lines: Sequence[str], addresses: Sequence[str], routes: Sequence[str]
    ) -> AsyncIterator[WireguardGo]:
        program = shutil.which("wireguard-go")
        if program is None:
            raise WireguardGoError("wireguard-go is not on the PATH")
        self._process = process = await asyncio.create_subprocess_exec(
            *(program, "-f", self.name),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "WG_PROCESS_FOREGROUND": "1"},
        )
        try:
            await self._configure("\n".join(["set=1", *lines, "", ""]))
            for address in addresses:
                await self._ip("address", "add", address, "dev", self.name)
            await self._ip("link", "set", self.name, "mtu", "1420", "up")
            for route in routes:
                if ":" not in route:
                    await self._ip("route", "add", route, "dev", self.name)
            yield self
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await process.wait()

    async def _configure(self, text: str) -> None:
        path = self._sockets / f"{self.name}.sock"
        async with asyncio.timeout(_READY_SECONDS):
            reader, writer = await self._connect(path)
            writer.write(text.encode())
            answer = await reader.readline()
            writer.close()
        if answer != b"errno=0\n":
            raise WireguardGoError(f"wireguard-go did not take its configuration: {answer.decode()!r}")

    async def _connect(self, path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Wait until somebody listens, for the file is there a moment before that."""
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return await asyncio.open_unix_connection(str(path))
            if self._process is None or self._process.returncode is not None:
                raise WireguardGoError(f"wireguard-go ended before {path} was there")
            await asyncio.sleep(_POLL_SECONDS)

    async def _ip(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec("ip", *arguments, stderr=asyncio.subprocess.PIPE)
        _, errors = await process.communicate()
        if process.returncode:
            raise WireguardGoError(f"ip {' '.join(arguments)}: {errors.decode().strip()}")
