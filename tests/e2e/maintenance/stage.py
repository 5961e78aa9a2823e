"""A node with an executable core, its panel and its desk: what the tests of maintenance have in common."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient, Response
from pgnode.testing.traffic import ClientCore
from pgnode.testing.users import make_users
from tests.support.core_lists import inbound_users
from tests.support.release_server import ReleaseServer

JSON = {"Content-Type": "application/json"}
USERS = 20
GEO_CODES = {"iran": "ir", "china": "cn", "russia": "ru"}


@dataclass
class Stage:
    node: NodeProcess
    server: ReleaseServer
    panel: PanelClient
    desk: PanelClient
    client: ClientCore
    config: dict[str, Any]

    @property
    def cores(self) -> Path:
        return self.node.state_dir / "cores"

    async def post(self, path: str, body: object | None = None) -> Response:
        data = None if body is None else json.dumps(body).encode()
        return await self.desk.request(
            "POST", path, data, headers=JSON if body is not None else None, timeout_seconds=120
        )

    async def update_core(self, version: str) -> Response:
        return await self.post("/node/core_update", {"core_version": version})

    async def version(self) -> str:
        return (await self.panel.info()).core_version

    async def stop(self) -> None:
        """Stop the node; a kept connection would be waited for."""
        await self.panel.close()
        await self.desk.close()
        assert await self.node.stop() == 0

    async def works(self) -> None:
        """The core runs with its users, and lets one in."""
        assert (await self.panel.info()).started
        await self.panel.backend_stats()
        assert set(await inbound_users(self.node.run_dir / "core.sock", "VLESS")) == {
            user.email for user in make_users(USERS, ["VLESS"])
        }
        await self.client.move("VLESS", 2_000, 3_000)


def detail_of(answer: Response, status: int) -> str:
    body = json.loads(answer.body)
    assert answer.status == status, body
    return str(body["detail"])
