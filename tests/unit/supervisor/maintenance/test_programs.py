"""Programs of maintenance jobs, run for real."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pgnode.errors import DeadlineExceededError
from pgnode.supervisor.maintenance.programs import OUTPUT_BYTES, Ended, run_program


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def test_how_it_ended_and_the_end_of_what_it_said(tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert await run_program(python("print('done'); raise SystemExit(3)"), output, 30) == Ended(3, "done")
    ended = await run_program(python("print('x' * 100_000, 'end')"), output, 30)
    assert (ended.code, len(ended.output) <= OUTPUT_BYTES, ended.output.endswith("x end")) == (0, True, True)


async def test_it_gets_its_environment_alone(tmp_path: Path) -> None:
    ended = await run_program(
        python("import json, os; print(json.dumps(os.environ.get('ONE')))"),
        tmp_path / "output",
        30,
        environment={"ONE": "1"},
    )
    assert json.loads(ended.output) == "1"


async def test_what_takes_too_long_is_killed_and_named(tmp_path: Path) -> None:
    code = "import signal; print('begun', flush=True); signal.pause()"
    with pytest.raises(DeadlineExceededError, match=r"the program did not end within 1 s and was killed"):
        await run_program(python(code), tmp_path / "output", 1, name="the program")


async def test_what_is_not_there_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await run_program(["/nowhere/program"], tmp_path / "output", 30)
