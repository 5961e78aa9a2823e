"""``pgnode demo`` ends as its story does."""

from __future__ import annotations

import json

import pytest

from pgnode.cli.demo import run_demo
from pgnode.demo import show
from pgnode.demo.report import Report


@pytest.mark.parametrize("code", [0, 1])
def test_its_code_is_that_of_the_story(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(show, "run_demo", lambda _report: code)
    assert run_demo() == code


def test_as_json_it_is_one_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(report: Report) -> int:
        report.step("A step")
        report.check(True, "one [holds]")
        report.check(False, "the other")
        return report.end()

    monkeypatch.setattr(show, "run_demo", run)
    assert run_demo(json_wanted=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told.pop("seconds") >= 0
    assert told == {
        "held": 1,
        "failed": 1,
        "checks": [{"held": True, "what": "one [holds]"}, {"held": False, "what": "the other"}],
    }
