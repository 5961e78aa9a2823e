"""Real users: a client core in a process of its own, one tunnel per user, and transfers through them.

Each :class:`Link` is one user's way into the node. The client core listens on a unix socket per link (no ports to
clash), wraps what comes in into the link's protocol and sends it to the node's inbound, from an address of its own:
the core leaves 127.0.0.1 out of its online lists, so users come from 127.0.0.2 and up. Everything ends up at one
:class:`~pgnode.testing.target.Target`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
import os
import shutil
import signal
import ssl
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pgnode.testing.target import BLOCK_BYTES, REQUEST_BYTES, Mode, Target, request
from pgnode.wire import service_pb2 as pb

#: A client core serves within half a second on an idle machine.
START_TIMEOUT_SECONDS = 60.0
#: What the core prints when it serves (core 26.10.10).
_STARTED = b" started"
#: Sizes of a Shadowsocks-2022 key.
_SS2022_KEY_BYTES = {"2022-blake3-aes-128-gcm": 16}
_SS2022_OTHER_KEY_BYTES = 32


class TransferError(Exception):
    """A transfer broke, or moved other bytes than it should."""


@dataclass(frozen=True)
class Link:
    """One user's way into one inbound: a name unique in its client core, an Xray outbound, and where it comes from."""

    name: str
    outbound: Mapping[str, Any]
    source_address: str = "127.0.0.2"


def link(
    inbound: Mapping[str, Any],
    user: pb.User,
    *,
    name: str = "",
    source_address: str = "127.0.0.2",
    flow: str = "",
) -> Link:
    """Return the link of ``user`` into the inbound that a config holds as ``inbound``; ``flow`` is VLESS's."""
    outbound: dict[str, Any] = {
        "protocol": inbound["protocol"],
        "settings": _settings(inbound, user, flow),
    }
    if "streamSettings" in inbound:
        outbound["streamSettings"] = _stream(inbound["streamSettings"], user)
    return Link(name or f"{user.email}@{inbound['tag']}", outbound, source_address)


def _settings(inbound: Mapping[str, Any], user: pb.User, flow: str) -> dict[str, Any]:
    """Return the settings of the outbound that reaches ``inbound`` as ``user``."""
    protocol = str(inbound["protocol"])
    server = {"address": "127.0.0.1", "port": int(str(inbound["port"]).split("-")[0])}
    proxies = user.proxies
    if protocol == "vless":
        account = {"id": proxies.vless.id, "encryption": "none", "flow": flow}
        return {"vnext": [server | {"users": [account]}]}
    if protocol == "vmess":
        return {"vnext": [server | {"users": [{"id": proxies.vmess.id, "security": "auto"}]}]}
    if protocol == "trojan":
        return {"servers": [server | {"password": proxies.trojan.password}]}
    if protocol == "shadowsocks":
        method = str(inbound["settings"].get("method", ""))
        if method.startswith("2022-"):
            password = f"{inbound['settings']['password']}:{ss2022_user_key(method, proxies.shadowsocks.password)}"
        else:
            method, password = proxies.shadowsocks.method, proxies.shadowsocks.password
        return {"servers": [server | {"method": method, "password": password}]}
    if protocol == "hysteria":
        return {"version": 2, **server}
    raise ValueError(f"no client is known for the protocol {protocol!r}")


def ss2022_user_key(method: str, password: str) -> str:
    """Return the key of a user in a Shadowsocks-2022 inbound: base64 of the right length as it is, else made by SHA-256."""
    size = _SS2022_KEY_BYTES.get(method, _SS2022_OTHER_KEY_BYTES)
    with contextlib.suppress(binascii.Error, ValueError):
        if len(base64.b64decode(password, validate=True)) == size:
            return password
    return base64.b64encode(hashlib.sha256(password.encode()).digest()[:size]).decode()


def _stream(inbound_stream: Mapping[str, Any], user: pb.User) -> dict[str, Any]:
    """Return the client's half of an inbound's ``streamSettings``: transports as they are, TLS and REALITY from the keys."""
    stream = {key: value for key, value in inbound_stream.items() if key not in ("tlsSettings", "realitySettings")}
    if "tlsSettings" in inbound_stream:
        tls = inbound_stream["tlsSettings"]
        pem = "\n".join(tls["certificates"][0]["certificate"])
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        stream["tlsSettings"] = {
            "serverName": tls.get("serverName", "localhost"),
            "alpn": tls.get("alpn", ["h2", "http/1.1"]),
            "pinnedPeerCertSha256": digest,
        }
    if "realitySettings" in inbound_stream:
        reality = inbound_stream["realitySettings"]
        stream["realitySettings"] = {
            "serverName": reality["serverNames"][0],
            "publicKey": reality_public_key(reality["privateKey"]),
            "shortId": reality["shortIds"][0],
            "fingerprint": "chrome",
        }
    if "hysteriaSettings" in inbound_stream:  # Hysteria authenticates in its transport
        stream["hysteriaSettings"] = {**inbound_stream["hysteriaSettings"], "auth": user.proxies.hysteria.auth}
    return stream


def reality_public_key(private_key: str) -> str:
    """Return the public half of REALITY's X25519 key, both in unpadded URL-safe base64."""
    key = X25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(private_key + "=" * (-len(private_key) % 4)))
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.urlsafe_b64encode(public).rstrip(b"=").decode()


@dataclass
class HeldTransfer:
    """A transfer that is kept going: a block to the target and back, again and again, every block checked.

    ``broken`` says how it broke, or is None; ``longest_silence_seconds`` is the longest wait for a block to come back.
    """

    link_name: str
    sent_bytes: int = 0
    received_bytes: int = 0
    rounds: int = 0
    longest_silence_seconds: float = 0.0
    broken: str | None = None
    _ending: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _round_done: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _task: asyncio.Task[None] | None = field(default=None, repr=False)

    async def wait_rounds(self, more: int = 1, timeout_seconds: float = 30.0) -> None:
        """Wait until ``more`` further blocks have come back. TransferError if it broke, TimeoutError."""
        goal = self.rounds + more
        async with asyncio.timeout(timeout_seconds):
            while self.rounds < goal:
                if self.broken is not None:
                    raise TransferError(f"{self.link_name}: {self.broken}")
                self._round_done.clear()
                await self._round_done.wait()

    async def end(self) -> None:
        """End it in good order and wait for that."""
        self._ending.set()
        if self._task is not None:
            await self._task

    def check(self) -> None:
        """Raise TransferError if it broke."""
        if self.broken is not None:
            raise TransferError(f"{self.link_name}: {self.broken}")

    async def _run(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        block_bytes: int,
        pause_seconds: float,
        silence_limit_seconds: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        head = request(Mode.ECHO, 0, 0)
        try:
            while not self._ending.is_set():
                block = self.rounds.to_bytes(8, "big") * (block_bytes // 8)
                begun = loop.time()
                writer.write(head + block)
                async with asyncio.timeout(silence_limit_seconds):
                    await writer.drain()
                    back = await reader.readexactly(len(block))
                self.longest_silence_seconds = max(self.longest_silence_seconds, loop.time() - begun)
                self.sent_bytes += len(head) + len(block)
                self.received_bytes += len(back)
                head = b""
                if back != block:
                    raise TransferError(f"round {self.rounds} came back with other bytes")
                self.rounds += 1
                self._round_done.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), pause_seconds)
        except (OSError, EOFError, TimeoutError, TransferError) as error:
            self.broken = f"broke after {self.rounds} rounds: {str(error) or type(error).__name__}"
        finally:
            self._round_done.set()
            writer.close()


class ClientCore:
    """A client core with its links, which end at ``target``. ``async with ClientCore(links, target) as client:``.

    ``tls`` is how users speak to a target with TLS; ``target_host`` is where they reach it, its own address by default.
    """

    def __init__(
        self, links: Iterable[Link], target: Target, *, tls: ssl.SSLContext | None = None, target_host: str = ""
    ) -> None:
        self.links = {item.name: item for item in links}
        self._target = target
        self._target_host = target_host or target.host
        self._tls = tls
        self._dir = Path(tempfile.mkdtemp(prefix="pgnc"))
        self._sockets = {name: self._dir / f"{number}.sock" for number, name in enumerate(self.links)}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self.output: deque[str] = deque(maxlen=200)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid if self._process else 0

    async def __aenter__(self) -> ClientCore:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pgnode.testing.client_core",
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            await self._wait_started(self._process)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        if process is not None:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)  # it has nothing to tidy up: its folder goes with it
            await process.wait()
        if self._reading is not None:
            await self._reading
        shutil.rmtree(self._dir, ignore_errors=True)

    async def _wait_started(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._reading = asyncio.create_task(self._read_output(process.stdout))
        process.stdin.write(json.dumps(self.config()).encode())
        process.stdin.close()
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await self._started.wait()
        except TimeoutError:
            pass
        if not self.serves:
            raise TransferError("the client core did not start:\n" + "\n".join(self.output))

    @property
    def serves(self) -> bool:
        """Whether it runs."""
        return self._started.is_set() and all(path.exists() for path in self._sockets.values())

    async def _read_output(self, output: asyncio.StreamReader) -> None:
        async for line in output:
            self.output.append(line.decode("utf-8", "replace").rstrip())
            if line.rstrip().endswith(_STARTED):
                self._started.set()
        self._started.set()  # the output has ended: nothing will start any more

    def config(self) -> dict[str, Any]:
        """Return the client core's own config: per link a tunnel inbound, an outbound and the rule that joins them."""
        inbounds, outbounds, rules = [], [], []
        for name, item in self.links.items():
            inbounds.append(
                {
                    "tag": f"in {name}",
                    "listen": str(self._sockets[name]),
                    "protocol": "tunnel",
                    "settings": {"address": self._target_host, "port": self._target.port, "network": "tcp"},
                }
            )
            outbounds.append({**item.outbound, "tag": f"out {name}", "sendThrough": item.source_address})
            rules.append({"inboundTag": [f"in {name}"], "outboundTag": f"out {name}"})
        return {
            "log": {"loglevel": "warning"},
            "inbounds": inbounds,
            "outbounds": outbounds,
            "routing": {"rules": rules},
        }

    async def connect(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection through link ``name`` to the target; the target's request has to be sent by the caller."""
        name_in_tls = "localhost" if self._tls is not None else None
        return await asyncio.open_unix_connection(str(self._sockets[name]), ssl=self._tls, server_hostname=name_in_tls)

    async def move(self, name: str, upload_bytes: int, download_bytes: int, *, timeout_seconds: float = 60.0) -> None:
        """Move exactly so many bytes of payload through link ``name``. TransferError if it fails or takes too long."""
        upload_bytes = max(upload_bytes, REQUEST_BYTES)
        head = request(Mode.MOVE, upload_bytes, download_bytes)
        received = 0
        try:
            async with asyncio.timeout(timeout_seconds):
                reader, writer = await self.connect(name)
                try:
                    writer.write(head)
                    left = upload_bytes - REQUEST_BYTES
                    while left > 0:
                        writer.write(bytes(min(left, BLOCK_BYTES)))
                        left -= min(left, BLOCK_BYTES)
                        await writer.drain()
                    while received < download_bytes:
                        block = await reader.read(BLOCK_BYTES)
                        if not block:
                            break
                        received += len(block)
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise TransferError(f"{name}: {str(error) or type(error).__name__}") from error
        if received != download_bytes:
            raise TransferError(f"{name}: {received} of {download_bytes} bytes came back, then the connection ended")

    async def refused(self, name: str, *, timeout_seconds: float = 5.0) -> bool:
        """Whether the node turns link ``name`` away: no byte comes back."""
        try:
            await self.move(name, REQUEST_BYTES, 1, timeout_seconds=timeout_seconds)
        except TransferError:
            return True
        return False

    @contextlib.asynccontextmanager
    async def hold(
        self,
        name: str,
        *,
        block_bytes: int = 8192,
        pause_seconds: float = 0.05,
        silence_limit_seconds: float = 30.0,
    ) -> AsyncIterator[HeldTransfer]:
        """Keep a transfer going through link ``name`` while the block runs. TransferError if it does not begin."""
        held = HeldTransfer(name)
        reader, writer = await self.connect(name)
        held._task = asyncio.create_task(held._run(reader, writer, block_bytes, pause_seconds, silence_limit_seconds))
        try:
            await held.wait_rounds(1, silence_limit_seconds + 1.0)
            yield held
        finally:
            await held.end()
