"""A core that stands still for good is replaced, with its config and its users."""

from __future__ import annotations

import asyncio
import json

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelError
from pgnode.testing.processes import is_running
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, TransferError, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST
from tests.support.node_state import node_status
from tests.support.polling import eventually
from tests.support.processes import core_pid, stop

NOT_YET = (PanelError, NoAnswerError, OSError, TransferError)
TAGS = ["VLESS", "Packets"]

#: Seconds that the node gives a core; calls to it end sooner.
HASTY = {"CORE_HANG_SECONDS": "3", "CORE_CALL_TIMEOUT_SECONDS": "2"}


async def test_a_core_that_stands_still_for_good_is_replaced(target: Target) -> None:
    packets = make_inbound("Packets", "vless", stream={"network": "kcp"})
    config = make_config([make_inbound("VLESS", "vless"), packets])
    users = make_users(20, TAGS)
    joining = make_user("joining@e2e", TAGS)
    links = [link(config["inbounds"][0], user, name=user.email) for user in (users[7], joining)]
    async with (
        NodeProcess(env=FAST | HASTY) as node,
        node.panel() as panel,
        ClientCore(links, target) as client,
    ):
        await panel.start(config, users)
        await client.move("user7@demo", 10_000, 10_000)
        before = await panel.traffic("user7@demo")
        core = core_pid(node)
        await stop(core)
        # Whatever is asked meanwhile is answered: there is a limit to every call of the core.
        backend = pb.Backend(type=pb.XRAY, config=json.dumps(config), users=[*users, joining])
        answers = await asyncio.gather(
            panel.request("PUT", "/user/sync", joining.SerializeToString()),
            panel.request("PUT", "/users/sync", pb.Users(users=[*users, joining]).SerializeToString()),
            panel.request("GET", "/stats", pb.StatRequest(type=pb.UsersStat, reset=True).SerializeToString()),
            panel.request("POST", "/start", backend.SerializeToString()),
        )
        assert {answer.status for answer in answers} <= {200, 500, 503, 504}, answers
        assert all(answer.status == 200 or answer.body for answer in answers), answers

        async def replaced() -> bool:
            return core_pid(node) not in (0, core) and (await node_status(node)).core_hangs > 0

        await eventually(replaced, "another core runs", errors=NOT_YET)
        assert not is_running(core)

        async def joins() -> bool:
            await panel.sync_user(joining)
            return True

        await eventually(joins, "users are changed", errors=NOT_YET)
        for user in (users[7], joining):
            await client.move(user.email, 10_000, 10_000)

        async def counted() -> bool:
            return (await panel.traffic("user7@demo")).uplink_bytes >= before.uplink_bytes + 10_000

        await eventually(counted, "what came before the hang is in the books, too", errors=NOT_YET)
