"""Load on a gRPC server over TLS, in a process of its own: the order as JSON on stdin, what was measured as JSON on stdout.

``unary``: one call after another, so many in flight over so many channels. ``stream``: client streams of so many messages
each from a file, over and over in its order, so many at once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import uvloop
from grpc import aio

from bench.load import LENGTH
from bench.samples import percentile
from pgnode.os_support.pdeath import die_with_parent


class Counted:
    """What was measured so far; calls that began in the warm-up do not count."""

    def __init__(self, from_time: float) -> None:
        self._from = from_time
        self.answers = 0
        self.milliseconds: list[float] = []
        self.refused = 0
        self.first_refusal = ""
        self.sent = 0

    def answer(self, begun: float, count: int = 1) -> None:
        if begun >= self._from:
            self.answers += count
            self.milliseconds.append((time.perf_counter() - begun) * 1000)

    def refusal(self, error: aio.AioRpcError) -> None:
        self.refused += 1
        self.first_refusal = self.first_refusal or f"{error.code()}: {error.details()}"


async def load(order: dict[str, Any], certificate: bytes, messages: list[list[bytes]]) -> dict[str, Any]:
    credentials = grpc.ssl_channel_credentials(certificate)
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [aio.secure_channel(order["address"], credentials, options) for _ in range(order["channels"])]
    for channel in channels:
        await channel.channel_ready()
    metadata = tuple(tuple(pair) for pair in order["metadata"])
    begun = time.perf_counter() + order["warm_up_seconds"]
    ends = begun + order["seconds"]
    counted = Counted(begun)

    async def unary(number: int, body: bytes) -> None:
        call: Any = channels[number % len(channels)].unary_unary(order["path"])  # type: ignore[call-arg]
        while (now := time.perf_counter()) < ends:
            counted.sent += 1
            try:
                await call(body, metadata=metadata, timeout=20)
            except aio.AioRpcError as error:
                counted.refusal(error)
            else:
                counted.answer(now)

    async def stream(number: int, parts: Iterator[list[bytes]]) -> None:
        call: Any = channels[number % len(channels)].stream_unary(order["path"])  # type: ignore[call-arg]
        while (now := time.perf_counter()) < ends:
            part = next(parts)
            counted.sent += len(part)
            try:
                await call(iter(part), metadata=metadata, timeout=30)
            except aio.AioRpcError as error:
                counted.refusal(error)
            else:
                counted.answer(now, len(part))

    if order["kind"] == "unary":
        body = bytes.fromhex(order["body"])
        await asyncio.gather(*(unary(number, body) for number in range(order["in_flight"])))
    else:
        parts = itertools.cycle(messages)
        await asyncio.gather(*(stream(number, parts) for number in range(order["in_flight"])))
    seconds = time.perf_counter() - begun
    for channel in channels:
        await channel.close(None)
    return {
        "answers": counted.answers,
        "seconds": seconds,
        "p50_ms": percentile(counted.milliseconds, 0.5),
        "p99_ms": percentile(counted.milliseconds, 0.99),
        "refused": counted.refused,
        "first_refusal": counted.first_refusal,
        "broken": 0,
        "sent": counted.sent,
    }


def _messages(path: Path, per_stream: int) -> list[list[bytes]]:
    """Messages of each stream."""
    data = path.read_bytes()
    found, at = [], 0
    while at < len(data):
        (length,) = LENGTH.unpack_from(data, at)
        at += LENGTH.size
        found.append(data[at : at + length])
        at += length
    return [found[start : start + per_stream] for start in range(0, len(found), per_stream)]


def main() -> None:
    die_with_parent()
    order = json.load(sys.stdin)
    messages = _messages(Path(order["messages"]), order["per_stream"]) if order["kind"] == "stream" else []
    found = uvloop.run(load(order, Path(order["certificate"]).read_bytes(), messages))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
