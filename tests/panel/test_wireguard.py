"""A core of type WireGuard, through the panel's own client."""

from __future__ import annotations

import json

import pytest

from pgnode.testing.wireguard import addresses, interface, peer
from pgnode.wire import service_pb2 as pb
from tests.panel.client import ClientError
from tests.panel.conftest import Stage

pytestmark = pytest.mark.needs_client

WIREGUARD = 1


async def test_a_wireguard_node_is_started_and_its_users_are_kept_in_step(stage: Stage) -> None:
    config = interface(latency={"test_url": "http://192.0.2.1/"})
    users = [peer(str(number), addresses(number)) for number in range(2, 12)]
    started = await stage.panel.call("start", config=json.dumps(config), backend_type=WIREGUARD, users=users)
    assert (started.started, bool(started.core_version), bool(started.node_version)) == (True, True, True)
    assert await stage.emails("wg0") == {str(number) for number in range(2, 12)}
    # What other tests' cores moved is owed still.
    await stage.panel.stats(pb.Outbounds, reset=True)
    # Two swap their addresses in a change of many, and one gets another key.
    changed = [peer("2", addresses(3)), peer("3", addresses(2)), peer("4", addresses(4), key="new")]
    assert await stage.panel.sync_chunked(changed) is None
    twice = await stage.panel.sync_chunked([peer("5", addresses(5), key="6")])
    assert twice is None, "whoever asked last has the key"
    assert await stage.emails("wg0") == {str(number) for number in (2, 3, 4, 5, 7, 8, 9, 10, 11)}
    assert {stat.name for stat in await stage.panel.stats(pb.Outbounds, reset=True)} <= {"wg0"}
    assert (await stage.panel.call("get_backend_stats")).num_goroutine > 0
    with pytest.raises(ClientError) as caught:
        await stage.panel.call("get_user_online_stats", email="2")
    assert caught.value.code == 404
    # And back to what the other tests have.
    assert (await stage.panel.start(stage.config, stage.users)).started
