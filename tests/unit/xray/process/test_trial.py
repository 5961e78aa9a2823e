"""Short-lived processes: their exit code, their output, their deadline; and what a refusal says."""

from __future__ import annotations

import re

import pytest

from pgnode.errors import StartFailedError
from pgnode.xray.process.trial import last_lines, refusal_reason, require_accepted, run_to_end

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


async def run(script: str, stdin: str = "", seconds: float = 20.0, stop: str | None = None) -> tuple[int, str]:
    pattern = re.compile(stop) if stop is not None else None
    return await run_to_end(["sh", "-c", script], stdin, seconds, ENVIRONMENT, pattern)


async def test_exit_code_and_both_streams() -> None:
    assert await run("cat; echo problem >&2; exit 3", "config ") == (3, "config problem\n")


async def test_a_process_that_does_not_read() -> None:
    code, output = await run("exec <&-; echo done", "x" * 1_000_000)
    assert (code, output) == (0, "done\n")


async def test_a_word_in_the_output_is_enough() -> None:
    code, output = await run("echo it has started; exec sleep 60", stop="started")
    assert code == -9
    assert "it has started" in output


async def test_an_end_without_the_word() -> None:
    assert await run("echo no; exit 7", stop="started") == (7, "no\n")


async def test_the_deadline() -> None:
    with pytest.raises(StartFailedError, match=r"did not answer within 0\.05 s"):
        await run("exec sleep 60", seconds=0.05)


async def test_a_command_that_is_not_there() -> None:
    with pytest.raises(StartFailedError, match="/none cannot be run: No such file"):
        await run_to_end(["/none"], "", 5.0, ENVIRONMENT)


async def test_a_program_that_prints_without_end() -> None:
    with pytest.raises(StartFailedError, match="sh prints more than 4,194,304 bytes: it is no core"):
        await run("exec yes")


def test_why_a_program_in_go_ended_stands_before_its_stack() -> None:
    assert last_lines("x\npanic: bad key\n\ngoroutine 1\n\tfile.go\n\tfile.go\n") == "panic: bad key"


FAILED = "Failed to start: main: failed to load config files: [stdin:] > infra/conf: no inbound > infra/conf: unknown"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (f"Xray 26.10.10\n{FAILED}\n", "infra/conf: no inbound > infra/conf: unknown"),
        ("Failed to start: main: something\n", "Failed to start: main: something"),
        ("Xray 26.10.10\n", ""),
        ("", ""),
    ],
)
def test_the_reason_is_what_is_innermost(output: str, reason: str) -> None:
    assert refusal_reason(output) == reason


def test_what_is_accepted() -> None:
    require_accepted(0, "", frozenset({0}))
    require_accepted(255, "", frozenset({255}))
    with pytest.raises(StartFailedError, match="gives no reason"):
        require_accepted(23, "", frozenset({0}))
    with pytest.raises(StartFailedError, match=r"^infra/conf: no inbound"):
        require_accepted(23, FAILED, frozenset({23}))
    with pytest.raises(StartFailedError, match=r"exit code 1: b \| c \| d"):
        require_accepted(1, "a\nb\nc\nd\n", frozenset({0}))
    with pytest.raises(StartFailedError, match="exit code 1: no output"):
        require_accepted(1, "", frozenset({0}))
    assert last_lines("a\nb\n") == "a | b"
