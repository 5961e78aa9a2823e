"""Rows that are texts in the store."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.store.rows import LedgerRun


@pytest.mark.parametrize("run", [LedgerRun(3, "boot:17:4711"), LedgerRun(0, ""), LedgerRun(12, "boot 1 2")])
def test_the_run_is_read_as_written(run: LedgerRun) -> None:
    assert LedgerRun.decode(run.encode()) == run


@pytest.mark.parametrize("text", ["", "x", b"\xff", None])
def test_a_damaged_run_is_no_traceback(text: Any) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        LedgerRun.decode(text)
