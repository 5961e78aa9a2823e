"""The very beginning of a supervisor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pgnode.errors import SettingsError
from pgnode.os_support import prepared, streams
from pgnode.os_support.lean_start import CHECKED_VARIABLE
from pgnode.settings import load
from pgnode.settings.handover import Checked, hand_on
from pgnode.supervisor import beginning, checked_start


@pytest.fixture(autouse=True)
def safe(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The streams of this process are the test's."""
    made: list[str] = []
    monkeypatch.setattr(streams, "make_safe", lambda: made.append("safe"))
    return made


def test_it_prepares_what_is_needed_and_is_a_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safe: list[str]
) -> None:
    counts: list[int] = []
    seen: list[Checked] = []

    def prepare(count: int, environment: Mapping[str, str]) -> None:
        assert environment is os.environ
        counts.append(count)

    def supervise(checked: Checked) -> int:
        seen.append(checked)
        return 3

    monkeypatch.setattr(prepared, "prepare", prepare)
    monkeypatch.setattr(checked_start, "main", supervise)
    checked = Checked(load(state_dir=tmp_path, grpc_workers=3), None, ["first"])
    monkeypatch.setenv(CHECKED_VARIABLE, str(hand_on(checked)))
    assert beginning.main() == 3
    assert (counts, safe) == ([4], ["safe"])
    assert [list(one.sentences) for one in seen] == [["first"]]
    assert CHECKED_VARIABLE not in os.environ


def test_one_that_was_prepared_is_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        def run(self) -> int:
            return 5

    monkeypatch.setattr(prepared, "prepare", lambda *_: Told())
    monkeypatch.setenv(CHECKED_VARIABLE, str(hand_on(Checked(load(state_dir=tmp_path), None, []))))
    assert beginning.main() == 5


def test_a_variable_that_somebody_else_has_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CHECKED_VARIABLE, "nonsense")
    assert beginning.main() == SettingsError.exit_code
    assert "unset it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 2),
        ({"grpc_workers": 0}, 1),
        ({"service_protocol": "none", "redis_url": "redis://127.0.0.1"}, 0),
    ],
)
def test_how_many_are_wanted(settings: dict[str, object], count: int, tmp_path: Path) -> None:
    assert beginning.wanted(load(state_dir=tmp_path, **settings)) == count


def test_what_is_common_has_no_thread_and_nothing_of_one_alone() -> None:
    code = (
        "import sys, threading, importlib; from pgnode.os_support import lean_start; lean_start.begin()\n"
        "from pgnode.supervisor import beginning\n"
        "for name in beginning.COMMON: importlib.import_module(name)\n"
        "import os; print(threading.active_count(), len(os.listdir('/proc/self/task')), *sys.modules)"
    )
    looked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    threads, tasks, *modules = looked.stdout.split()
    assert (threads, tasks) == ("1", "1")
    alone = {"grpc", "falcon", "gunicorn", "sqlite3", "pydantic", "pgnode.supervisor.main", "pgnode.cli"}
    assert not alone & set(modules)
