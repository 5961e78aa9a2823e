"""Sends inputs to a node and reads what comes back, each within a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from dataclasses import dataclass

from pgnode.testing.node import NodeProcess
from tests.fuzz import judge
from tests.fuzz.cases import Case, GrpcCase, HttpCase
from tests.support.polling import pause

#: Limits of the fuzzed nodes, short so that inputs which are never complete take no minutes.
HEADER_SECONDS = 2
BODY_SECONDS = 3
#: An answer comes within the limits above, or at once; a machine with other things to do gets this much more.
ROOM_SECONDS = 15.0
#: A start may take as long as a core needs twice: one to try the config, one to run it.
START_LIMIT_SECONDS = 90.0
#: Frames that are wrong need no answer: after so long without any the next input has its turn.
_SILENCE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an input."""

    data: bytes
    seconds: float
    #: The node closed the connection, or answered as far as it had to; False where the time was up before.
    ended: bool


class Sender:
    """Sends to one node."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self._tls = {}
        for name in ("http/1.1", "h2"):
            context = ssl.create_default_context(cafile=str(node.ca_file))
            context.set_alpn_protocols([name])
            self._tls[name] = context

    async def send(self, case: Case) -> Outcome:
        """Send an input and read what comes back. OSError where no connection can be made."""
        node = self._node
        if isinstance(case, GrpcCase):
            port, protocol = node.grpc_port, "h2"
        else:
            port, protocol = node.api_port if case.port == "api" else node.port, "http/1.1"
        begun = time.monotonic()
        async with asyncio.timeout(ROOM_SECONDS):
            reader, writer = await asyncio.open_connection(node.host, port, ssl=self._tls[protocol], limit=1 << 26)
        received = bytearray()
        sending = asyncio.create_task(_send(writer, case.parts))
        try:
            if case.ending == "cuts":
                await sending
                return Outcome(b"", time.monotonic() - begun, ended=True)
            async with asyncio.timeout(_limit_seconds(case)):
                ended = await _read(reader, received, case)
        except TimeoutError:
            ended = False
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending
            writer.transport.abort()
        return Outcome(bytes(received), time.monotonic() - begun, ended)


def _limit_seconds(case: Case) -> float:
    if isinstance(case, HttpCase) and case.second and case.route is not None:
        return START_LIMIT_SECONDS
    return HEADER_SECONDS + BODY_SECONDS + ROOM_SECONDS


async def _send(writer: asyncio.StreamWriter, parts: tuple[bytes, ...]) -> None:
    with contextlib.suppress(OSError):
        for number, part in enumerate(parts):
            if number:
                await pause()
            writer.write(part)
            await writer.drain()


async def _read(reader: asyncio.StreamReader, received: bytearray, case: Case) -> bool:
    """Read until the answer is complete, or until the node closes the connection. TimeoutError."""
    silence = _SILENCE_SECONDS if isinstance(case, GrpcCase) and case.method is None else None
    while True:
        try:
            block = await asyncio.wait_for(reader.read(1 << 20), silence)
        except TimeoutError:
            if silence is None:
                raise
            return True
        except OSError:
            return True
        received += block
        if not block or _is_complete(bytes(received), case):
            return True


def _is_complete(data: bytes, case: Case) -> bool:
    if isinstance(case, GrpcCase):
        return case.method is not None and judge.is_over(data)
    if case.route is None:
        return False
    with contextlib.suppress(judge.Malformed):
        return bool(judge.answers(data))
    return False
