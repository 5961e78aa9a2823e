"""A node of this version starts on the state that 0.5.0 left, and nothing of it is lost. The state is a real one."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.testing.node import NodeProcess
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST
from tests.support import earlier_state as earlier
from tests.support.polling import eventually
from tests.support.processes import run_to_end
from tests.support.stored import stored_state


@pytest.fixture
def state_dir(short_dir: Path) -> Path:
    made = short_dir / "state"
    made.mkdir()
    earlier.unpack(made)
    return made


@pytest_asyncio.fixture(loop_scope="session")
async def node(state_dir: Path) -> AsyncIterator[NodeProcess]:
    async with NodeProcess(state_dir=state_dir, env=FAST) as made:
        yield made


async def test_everything_that_0_5_0_stored_is_there(node: NodeProcess) -> None:
    async with node.panel() as panel:
        await eventually(panel.backend_stats, "the previous core was restored", errors=(Exception,))
        assert (await panel.info()).started
        # Traffic: what was not given is owed, also what was on its way.
        owed = {f"user>>>{stat.name}>>>traffic>>>{stat.type}": stat.value for stat in await panel.stats(pb.UsersStat)}
        on_loan = {f"user>>>{earlier.ON_LOAN}>>>traffic>>>{direction}" for direction in ("uplink", "downlink")}
        expected = {name: value for name, value in earlier.moved().items() if name not in earlier.given()}
        assert {name: value for name, value in owed.items() if value and name not in on_loan} == {
            name: value for name, value in expected.items() if name not in on_loan
        }
        traffic = await panel.traffic(earlier.ON_LOAN, reset=True)
        assert (traffic.uplink_bytes, traffic.downlink_bytes) == (6000, 12000)
        given = await panel.traffic("user0@import", reset=True)
        assert (given.uplink_bytes, given.downlink_bytes) == (0, 0), "nothing is given twice"
        # Routing, in the core.
        rules = await panel.call("GET", "/routing/rules", None, pb.RoutingRulesResponse)
        assert {"first", "added"} <= {rule.rule_tag for rule in rules.rules}
        balancer = await panel.call(
            "POST", "/routing/balancer", pb.BalancerInfoRequest(tag="pair"), pb.BalancerInfoResponse
        )
        assert "BLOCK" in str(balancer)
    code, output = await run_to_end([sys.executable, "-m", "pgnode", "users"], env=node.environment())
    assert code == 0
    summary, *rows = output.splitlines()
    assert summary.startswith(f"{earlier.USERS:,} desired, {earlier.USERS:,} applied, 2 rejected; node running")
    assert len(rows) == earlier.USERS + 2
    state = stored_state(node)
    assert len(state.users) == earlier.USERS
    # Taken over once.
    await node.stop()
    assert not (node.state_dir / "store").exists()
    await node.start()
    await eventually(lambda: stored_state(node).core_run > state.core_run, "another core runs")
    again = stored_state(node)
    assert (again.users, again.rejected, again.routing) == (state.users, state.rejected, state.routing)
