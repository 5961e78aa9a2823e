"""Short-lived core processes: one tries a config, one says its version. What they print and how they end is the answer.

Exit codes of the core (Xray 26.10.10, measured): 23 config refused, 255 start failed, 0 after SIGTERM.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Final

from pgnode.errors import StartFailedError
from pgnode.xray.process import short_lived

#: The core refuses the config; starting it again changes nothing.
EXIT_CONFIG_REFUSED: Final = 23
#: The config is fine, but the core could not start: for a config that cannot be bound this is the good answer.
EXIT_START_FAILED: Final = 255

_READ_BYTES: Final = 65536
#: Bytes that a short-lived core may print, at most.
OUTPUT_BYTES_MAX: Final = 4 * 1024 * 1024
_SHOWN_LINES: Final = 3
#: What the core prints last of its start.
STARTED: Final = re.compile(r"\bXray (\d+\.\d+\.\d+)\b.* started")
#: How the line begins that says why a program in Go ended.
_GO_ENDS: Final = ("panic: ", "fatal error: ", "runtime: ", "malformed GOMEMLIMIT")
_FAILED = re.compile(r"Failed to start: |Configuration is invalid|failed to load config files: ")


async def run_to_end(
    command: Sequence[str],
    stdin: str,
    deadline_seconds: float,
    environment: Mapping[str, str],
    stop: re.Pattern[str] | None = None,
) -> tuple[int, str]:
    """Run a short-lived process; it is killed at the deadline, or once ``stop`` matches its output.

    Args:
        command: The program and its arguments.
        stdin: What it reads.
        deadline_seconds: Seconds until it is killed.
        environment: All of its environment.
        stop: What in its output is enough.

    Returns:
        The exit code, and the output of both streams.

    Raises:
        StartFailedError: The process cannot be run, or did not end in time.
    """
    output = bytearray()

    async def collect(reader: asyncio.StreamReader) -> None:
        while block := await reader.read(_READ_BYTES):
            output.extend(block)
            if len(output) > OUTPUT_BYTES_MAX:
                raise StartFailedError(f"{command[0]} prints more than {OUTPUT_BYTES_MAX:,} bytes: it is no core")
            if stop is not None and stop.search(output.decode(errors="replace")):
                return

    async with short_lived.running(command[0], command, environment) as (process, into, out_of):
        try:
            async with asyncio.timeout(deadline_seconds):
                await asyncio.gather(short_lived.feed(into, stdin), collect(out_of))
                if stop is None or out_of.at_eof():
                    await process.wait()
        except TimeoutError:
            raise StartFailedError(f"the core did not answer within {deadline_seconds:g} s") from None
    return process.returncode or 0, output.decode(errors="replace")


def require_accepted(code: int, output: str, accepted: frozenset[int]) -> None:
    """Find out how a trial of a config ended.

    Args:
        code: The exit code of the process.
        output: What it printed.
        accepted: The exit codes with which this kind of core accepts a config.

    Raises:
        StartFailedError: The core does not accept the config; the text is its reason, where it gave one.
    """
    if code == EXIT_CONFIG_REFUSED:
        raise StartFailedError(refusal_reason(output) or "the core refuses the config and gives no reason")
    if code not in accepted:
        reason = last_lines(output) or "no output"
        raise StartFailedError(f"the config check ended with exit code {code}: {reason}")


def refusal_reason(output: str) -> str:
    """Find the core's own reason: the innermost causes of its "Failed to start" line; "" when it gave none."""
    line = next((line for line in reversed(output.splitlines()) if _FAILED.search(line)), "")
    links = [link for link in line.split(" > ") if not _FAILED.search(link)]
    return " > ".join(links) if links else line


def last_lines(output: str) -> str:
    """Join the last lines of a process's output, for the text of an error; what Go ends over stands before its stack."""
    lines = output.splitlines()
    cause = next((line for line in lines if line.startswith(_GO_ENDS)), None)
    if cause is not None:
        return cause
    return " | ".join(output.splitlines()[-_SHOWN_LINES:])
