"""Asking the node that is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgnode.cli import asking
from pgnode.cli.asking import ask_node, seconds_from
from pgnode.cli.target import Target
from pgnode.errors import NotAnsweringError, NotRunningError, OperatorError
from pgnode.settings import load
from pgnode.supervisor.control.client import DeclinedError, NotAnsweredError, SilentError


def target(tmp_path: Path, pid: int | None = 812) -> Target:
    return Target(load(state_dir=str(tmp_path)), pid)


def test_an_answer_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(folder: Path, question: str, values: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        return {"folder": folder, "question": question, "seconds": seconds, **values}

    monkeypatch.setattr(asking, "ask", answer)
    found = ask_node(target(tmp_path), "logs", {"after": 1}, seconds=3)
    assert found == {"folder": tmp_path / "run", "question": "logs", "seconds": 3, "after": 1}


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [(DeclinedError("no"), OperatorError, 1), (SilentError("silent"), NotAnsweringError, 4)],
)
def test_why_there_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: NotAnsweredError, kind: type[OperatorError], code: int
) -> None:
    def fails(*_arguments: object, **_named: object) -> None:
        raise error

    monkeypatch.setattr(asking, "ask", fails)
    with pytest.raises(kind, match=str(error)) as raised:
        ask_node(target(tmp_path), "logs")
    assert raised.value.exit_code == code


def test_a_node_that_is_down_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="no node runs with STATE_DIR="):
        ask_node(target(tmp_path, None), "logs")


def test_times_of_options() -> None:
    assert (seconds_from("--for", None), seconds_from("--for", "10m")) == (None, 600)
    for text in ("0s", "soon"):
        with pytest.raises(OperatorError, match=f"--for {text} is not allowed"):
            seconds_from("--for", text)
