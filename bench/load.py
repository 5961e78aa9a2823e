"""Load on an HTTP server over TLS: many connections, one request at a time on each, from a process of their own.

The process is ``python -m bench.load_process``; requests reach it as bytes, so that making them costs nothing while it
measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import Figure
from bench.samples import median, turns

#: Load before anything is counted: connections, caches and the workers' branch predictors get warm.
WARM_UP_SECONDS = 0.3
#: How long the last answers may take after the time is up.
GRACE_SECONDS = 15.0

LENGTH = struct.Struct("<I")
REPOSITORY = Path(__file__).resolve().parent.parent


class LoadError(Exception):
    """Load could not be made at all. ``str(error)`` says why."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one round of load measured; only answers with status 200 count."""

    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    #: Answers with another status, and the first of them as text.
    refused: int
    first_refusal: str
    #: Connections that ended with a request under way.
    broken: int
    #: Requests sent in all, warm-up included.
    sent: int

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over rounds, and the faults of all of them."""

    per_second: float
    p50_ms: float
    p99_ms: float
    faults: str

    @property
    def figures(self) -> list[Figure]:
        return [Figure(self.per_second, "/s"), Figure(self.p99_ms, "ms", "p99")]


class Requests:
    """Whole requests, head and body, sent one after the other by whichever connection is free, and again from the start.

    ``with`` keeps them in a file for the load process. Rounds go on where the one before ended, so that a list in which
    every request changes something goes on changing something.
    """

    def __init__(self, requests: Iterable[bytes]) -> None:
        self.count = 0
        self.next = 0
        self._file = tempfile.NamedTemporaryFile(prefix="pgnbench", delete=False)  # noqa: SIM115 - closed below
        with self._file as file:
            for request in requests:
                file.write(LENGTH.pack(len(request)) + request)
                self.count += 1
        self.path = Path(file.name)
        if not self.count:
            self.close()
            raise LoadError("there are no requests to send")

    def close(self) -> None:
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Requests:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: a server on loopback and what it is asked."""

    port: int
    requests: Requests
    host: str = "127.0.0.1"


async def run_load(side: Side, *, connections: int, seconds: float) -> LoadResult:
    """One round of load. LoadError when the load process fails or a server does not take connections."""
    order = {
        "host": side.host,
        "port": side.port,
        "connections": connections,
        "seconds": seconds,
        "warm_up_seconds": WARM_UP_SECONDS,
        "grace_seconds": GRACE_SECONDS,
        "requests": str(side.requests.path),
        "first": side.requests.next,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.load_process",
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    try:
        async with asyncio.timeout(seconds + WARM_UP_SECONDS + 2 * GRACE_SECONDS):
            output, errors = await process.communicate(json.dumps(order).encode())
    except TimeoutError:
        raise LoadError("the load process did not end in time") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        raise LoadError(f"the load process failed: {errors.decode('utf-8', 'replace').strip()[-500:]}")
    found: dict[str, Any] = json.loads(output)
    result = LoadResult(**found)
    side.requests.next = (side.requests.next + result.sent) % side.requests.count
    if not result.answers:
        raise LoadError(
            f"port {side.port} gave no answer in {seconds:g} s: {result.broken} connections broke, "
            f"{result.refused} answers were refusals, the first: {result.first_refusal or 'none'}"
        )
    return result


async def compare(sides: Mapping[str, Side], *, connections: int, seconds: float, rounds: int) -> dict[str, Summary]:
    """Each side's medians over ``rounds`` in which they take turns. LoadError."""
    results: dict[str, list[LoadResult]] = {name: [] for name in sides}
    for name in turns(list(sides), rounds):
        results[name].append(await run_load(sides[name], connections=connections, seconds=seconds))
    return {name: summarize(rounds_of_one) for name, rounds_of_one in results.items()}


def summarize(results: Sequence[LoadResult]) -> Summary:
    """Medians; ``faults`` is empty where every request was answered with 200. Pure."""
    refused = sum(result.refused for result in results)
    broken = sum(result.broken for result in results)
    faults = []
    if refused:
        first = next(result.first_refusal for result in results if result.refused)
        faults.append(f"{refused} refused, first: {first}")
    if broken:
        faults.append(f"{broken} connections broke")
    return Summary(
        per_second=median(result.per_second for result in results),
        p50_ms=median(result.p50_ms for result in results),
        p99_ms=median(result.p99_ms for result in results),
        faults=", ".join(faults),
    )
