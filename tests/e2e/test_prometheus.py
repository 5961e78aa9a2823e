"""A Prometheus scrapes a node as deploy/prometheus says, over TLS with METRICS_KEY and over METRICS_PORT, and takes the rules."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pgnode.metrics.catalogue import FAMILIES
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.ports import free_port
from pgnode.testing.users import make_users
from tests.e2e.conftest import WITH_GRPC
from tests.support.polling import eventually

PROMETHEUS = shutil.which("prometheus")
RULES = Path(__file__).parents[2] / "deploy" / "prometheus"
KEY = "a key for monitors alone"

#: Seconds in which a Prometheus comes up and scrapes, on a machine that is busy.
LONG = 120.0

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (Debian's package prometheus)")


def config_for(node: NodeProcess, metrics_port: int, folder: Path) -> str:
    """The scrape config of deploy/, for this node; and one more job for the port without a key."""
    key = folder / "key"
    key.write_text(KEY)
    text = (RULES / "scrape.yml").read_text(encoding="utf-8")
    for shipped, here in (
        ("/etc/prometheus/pgnode/east.pem", str(node.ca_file)),
        ("/etc/prometheus/pgnode/east.key", str(key)),
        ("node-east:62051", f"{node.host}:{node.api_port}"),
        ("scrape_interval: 15s", "scrape_interval: 2s"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    return (
        "global: {evaluation_interval: 1s, scrape_timeout: 2s}\n"
        f"rule_files: [{RULES}/alerts.yml, {RULES}/xray-compat.rules.yml]\n"
        f"{text.rstrip()}\n"
        "  - job_name: plain\n"
        "    scrape_interval: 2s\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{metrics_port}']}}]\n"
    )


@contextlib.asynccontextmanager
async def prometheus(config: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """One that runs, and a client for its API."""
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(PROMETHEUS),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False, timeout=30) as client:
            yield client
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_prometheus_scrapes_a_node_and_takes_the_rules(short_dir: Path) -> None:
    metrics_port = free_port()
    environment = {**WITH_GRPC, "METRICS_KEY": KEY, "METRICS_PORT": str(metrics_port)}
    async with NodeProcess(env=environment) as node, node.panel() as panel:
        await panel.start(make_config([make_inbound("VLESS", "vless")]), make_users(3, ["VLESS"]))
        async with prometheus(config_for(node, metrics_port, short_dir), short_dir) as client:

            async def ask(path: str, **query: str) -> Any:
                # While it comes up, it says "Service Unavailable".
                answer = (await client.get(path, params=query)).raise_for_status().json()
                assert answer["status"] == "success", answer
                return answer["data"]

            async def value(expression: str) -> float:
                found = (await ask("/query", query=expression))["result"]
                return float(found[0]["value"][1]) if found else -1.0

            async def scraped() -> bool:
                targets = (await ask("/targets"))["activeTargets"]
                return [target["health"] for target in targets] == ["up", "up"]

            log = short_dir / "prometheus.log"
            try:
                await eventually(scraped, "both jobs are scraped", LONG, errors=(httpx.HTTPError,))
            except AssertionError as error:
                raise AssertionError(f"{error}\n{log.read_text()}") from None

            async def counted() -> bool:
                # The node counts workers and users when they report, once a second.
                return [
                    await value(f'{name}{{job="{job}"}}')
                    for job in ("pgnode", "plain")
                    for name in ("pgnode_supervisor_up", "pgnode_core_up", "pgnode_users_desired")
                ] == [1, 1, 3, 1, 1, 3]

            await eventually(counted, "both tell of the core and of its users", LONG)
            known = {name for family in FAMILIES for name in family.series_names}

            async def named() -> bool:
                found = (await ask("/query", query='count by(__name__) ({job="pgnode"})'))["result"]
                names = {one["metric"]["__name__"] for one in found}
                # What Prometheus adds to each target, and the names of the recording rules.
                assert not {name for name in names - known if not re.fullmatch(r"up|scrape_\w+|xray_\w+", name)}
                # A scrape that fails on a busy machine leaves none of them for a moment.
                return len(names & known) > 0.6 * len(known)

            await eventually(named, "nearly all that the page names is there, and nothing else", LONG)

            async def evaluated() -> bool:
                groups = (await ask("/rules"))["groups"]
                rules = [rule for group in groups for rule in group["rules"]]
                assert not [rule for rule in rules if rule["health"] == "err"]
                return bool(rules) and all(rule["health"] == "ok" for rule in rules)

            await eventually(evaluated, "every rule was evaluated, without an error", LONG)
            firing = (await ask("/query", query='ALERTS{alertstate="firing"}'))["result"]
            assert firing == [], "nothing is wrong with this node"
