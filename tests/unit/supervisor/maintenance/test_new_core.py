"""A new core because somebody wants one."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pgnode.supervisor.maintenance.new_core import NewCore


class Node:
    def __init__(self, runs: bool) -> None:
        self.runs = runs

    async def exchange_core(self, change: Any, undo: Any, what: str) -> bool:
        assert "operator" in what
        await change()
        await undo()
        return self.runs


@pytest.mark.parametrize(("runs", "said"), [(True, "a new core runs"), (False, "no core has to run")])
async def test_it_says_what_became_of_it(runs: bool, said: str) -> None:
    job = NewCore(cast(Any, Node(runs)))
    assert repr(job) == "NewCore()"
    assert (await job.run({})).startswith(said)
