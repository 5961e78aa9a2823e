"""Who is ended first when memory runs out, with processes whose scores the kernel itself keeps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from pgnode.os_support import oom_score, pdeath

#: Prints its own score; what it did before is told as an argument.
_SAYS = "from pgnode.os_support import oom_score; import os; {}; print(oom_score.read_score())"


def score_after(code: str) -> int:
    command = [sys.executable, "-c", _SAYS.format(code)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=30, check=True).stdout)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"]) as child:
        yield child
        child.kill()


def test_the_score_of_another_process_is_set_and_set_back(process: subprocess.Popen[bytes]) -> None:
    first = oom_score.read_score(process.pid)
    oom_score.write_score(process.pid, first + 5)
    assert oom_score.read_score(process.pid) == first + 5
    oom_score.write_score(process.pid, first)
    assert oom_score.read_score(process.pid) == first
    oom_score.write_score(process.pid, 5000)
    assert oom_score.read_score(process.pid) == oom_score.MAX_SCORE


def test_a_process_raises_its_own() -> None:
    assert score_after("oom_score.raise_own(7)") == oom_score.read_score() + 7


def test_a_program_is_ended_before_its_parent() -> None:
    program = [sys.executable, "-c", _SAYS.format("pass")]
    command = pdeath.command(program, 30)
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=30, check=True)
    assert int(found.stdout) == oom_score.read_score() + 30


@pytest.mark.parametrize("times", [1, 2])
def test_a_supervisor_is_ended_before_the_core(times: int) -> None:
    """Also one that took the place of another, with the environment of that."""
    own = oom_score.read_score()
    code = (
        f"firsts = {{oom_score.give_way_to_the_core(os.environ) for _ in range({times})}}; assert firsts == {{{own}}}"
    )
    assert score_after(code) == own + oom_score.SUPERVISOR_POINTS


def test_a_note_that_says_nothing_of_use_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    own, written = oom_score.read_score(), []
    monkeypatch.setattr(oom_score, "write_score", lambda _pid, score: written.append(score))
    for text in ("no number", str(own + 300)):
        environment = {oom_score.FIRST_VARIABLE: text}
        assert oom_score.give_way_to_the_core(environment) == own
        assert environment == {oom_score.FIRST_VARIABLE: str(own)}
    assert written == [own + oom_score.SUPERVISOR_POINTS] * 2


def test_a_system_without_such_scores_is_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise PermissionError

    monkeypatch.setattr(oom_score, "write_score", refuse)
    assert oom_score.give_way_to_the_core({}) is None
    oom_score.raise_own(1)
    monkeypatch.setattr(oom_score, "read_score", refuse)
    assert oom_score.give_way_to_the_core({}) is None
