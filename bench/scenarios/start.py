"""Start: POST /start with 10,000 users beside the bare core that is given the finished config.

The bare side is a process with the same embedded core, from its spawning until its API answers: what a start costs when
nobody checks the config, puts users in or stores anything. Each start of the node is from a stopped one, with other
ports and other keys, so that it is a new core and a new set of users each time.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from bench.registry import Bench, scenario
from bench.report import Figure, Row, at_most
from bench.samples import median
from bench.servers import node, start_bare_core
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.panel import PanelClient
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb

USERS = 10_000
MANY_USERS = 100_000
PROTOCOLS = {"VLESS": "vless", "Trojan": "trojan"}
AIM = 1.5
#: A start from nothing is slower than those after it: files and libraries are in memory by then, on both sides.
WARM_UPS = 1


@scenario("start", f"POST /start with {USERS:,} users in {len(PROTOCOLS)} inbounds beside the bare core")
async def start(bench: Bench) -> AsyncGenerator[Row, None]:
    async for row in _rows(bench, USERS):
        yield row


@scenario("start-many", f"the same with {MANY_USERS:,} users", timeout_seconds=180, default=False)
async def start_many(bench: Bench) -> AsyncGenerator[Row, None]:
    async for row in _rows(bench, MANY_USERS):
        yield row


async def _rows(bench: Bench, count: int) -> AsyncGenerator[Row, None]:
    ours, bare = [], []
    with tempfile.TemporaryDirectory(prefix="pgnstart") as folder:
        generated = Path(folder, "config.json")
        async with (
            node(bench, GENERATED_CONFIG_PATH=str(generated), STOP_LINGER_SECONDS="0") as beside,
            beside.panel() as panel,
        ):
            for number in range(WARM_UPS + bench.rounds):
                bench.say(f"POST /start, {number + 1} of {WARM_UPS + bench.rounds}")
                body = _backend(count, number)
                begun = time.monotonic()
                await _start(bench, panel, body)
                ours.append(time.monotonic() - begun)
                config = _finished(generated, count)
                await panel.stop()
                bare.append(await start_bare_core(config))
    took, other = median(ours[WARM_UPS:]), median(bare[WARM_UPS:])
    yield Row(
        f"POST /start, {count:,} users ({len(body) / 1e6:.1f} MB)",
        [Figure(took, "s")],
        [Figure(other, "s")],
        "bare core",
        at_most(took / other, AIM, "times the bare core"),
    )


def _backend(users_count: int, number: int) -> bytes:
    inbounds = [make_inbound(tag, protocol) for tag, protocol in PROTOCOLS.items()]
    users = make_users(users_count, list(PROTOCOLS), key=str(number))
    return pb.Backend(type=pb.XRAY, config=json.dumps(make_config(inbounds)), users=users).SerializeToString()


async def _start(bench: Bench, panel: PanelClient, body: bytes) -> None:
    response = await panel.request("POST", "/start", body, timeout_seconds=30.0)
    if response.status != 200:
        raise RuntimeError(f"POST /start is {response.status}: {response.body[:200]!r}")
    bench.facts["core"] = f"Xray {pb.BaseInfoResponse.FromString(response.body).core_version}"


def _finished(path: Path, wanted: int) -> dict[str, Any]:
    """The config that the node gave its core. RuntimeError where it lacks users: the comparison is worth nothing then."""
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for inbound in config["inbounds"]:
        if inbound.get("tag") in PROTOCOLS:
            count = len(inbound["settings"]["clients"])
            if count != wanted:
                raise RuntimeError(f"the node's config has {count} users in {inbound['tag']}, not {wanted}")
    return config
