"""A core starts with everybody who is desired."""

from __future__ import annotations

import json

from pgnode.store.changes import Journal
from pgnode.supervisor.users.decoding import decode
from pgnode.supervisor.users.full_config import SLICE, render_config
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.table import UserTable
from pgnode.testing.run_specs import make_run_spec
from tests.unit.supervisor.users.models import vless_user


async def test_the_config_has_everybody_whether_collected_or_not() -> None:
    base = make_run_spec("vless").base
    table, cache = UserTable(Journal()), ClientJsonCache(base.managed_inbounds)
    for number in range(SLICE + 1):
        table.put(f"user{number}", vless_user(f"user{number}", number).SerializeToString())
    cache.put("user0", table.desired["user0"], *decode(table.get("user0"), base.managed_inbounds))
    for collected in (None, cache):
        document = json.loads(await render_config(base, table, base.managed_inbounds, collected))
        [inbound] = document["inbounds"]
        assert [client["email"] for client in inbound["settings"]["clients"]] == list(table.desired)
