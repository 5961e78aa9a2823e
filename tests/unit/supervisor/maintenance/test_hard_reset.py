"""The job that forgets everything."""

from __future__ import annotations

from pgnode.supervisor.maintenance.hard_reset import HardReset
from tests.unit.supervisor.maintenance.fakes import FakeNode


async def test_the_node_forgets() -> None:
    node = FakeNode()
    job = HardReset(node)
    assert "forgotten" in await job.run({})
    assert node.log == ["reset"]
    assert repr(job) == "HardReset()"
