"""``pgnode demo`` ends as its story does."""

from __future__ import annotations

import pytest

from pgnode.cli.demo import run_demo
from pgnode.demo import show


@pytest.mark.parametrize("code", [0, 1])
def test_its_code_is_that_of_the_story(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(show, "run_demo", lambda: code)
    assert run_demo() == code
