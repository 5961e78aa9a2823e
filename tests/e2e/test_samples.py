"""Configs as panels send them start, and each inbound then has exactly the users it should, as the core lists them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pgnode.testing.configs import config_tags
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.ports import free_port
from pgnode.testing.users import make_users
from tests.e2e.conftest import SAMPLES
from tests.support.core_lists import inbound_tags, inbound_users
from tests.support.polling import eventually
from tests.support.processes import core_pid

STATIC = "Static clients"
#: Type of account that a user has in an inbound of a protocol.
ACCOUNTS = {
    "vless": "xray.proxy.vless.Account",
    "vmess": "xray.proxy.vmess.Account",
    "trojan": "xray.proxy.trojan.Account",
    "shadowsocks": "xray.proxy.shadowsocks.Account",
    "shadowsocks 2022": "xray.proxy.shadowsocks_2022.Account",
    "hysteria": "xray.proxy.hysteria.account.Account",
}


def sample(name: str, folder: Path) -> dict[str, Any]:
    """A sample with free ports, and log files in ``folder``: tests share the machine with others."""
    config: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    for inbound in config["inbounds"]:
        port = inbound.get("port")
        if isinstance(port, int):
            inbound["port"] = free_port()
        elif port is not None:
            inbound["port"] = ",".join(str(free_port()) for _ in range(3))
        if str(inbound.get("listen", "")).startswith("@"):
            inbound["listen"] = f"@pgnode-test-{os.getpid()}"
    for key in ("access", "error"):
        if config["log"].get(key, "none") != "none":
            config["log"][key] = str(folder / f"{key}.log")
    return config


def kind(inbound: dict[str, Any]) -> str:
    method = str(inbound["settings"].get("method", ""))
    return f"{inbound['protocol']} 2022" if method.startswith("2022-") else str(inbound["protocol"])


@pytest.mark.parametrize("name", ["panel-default", "wide", "balancer"])
async def test_sample_starts_and_has_its_users(
    node: NodeProcess, panel: PanelClient, tmp_path: Path, name: str
) -> None:
    config = sample(name, tmp_path)
    tags = config_tags(config)
    users = make_users(200, tags)
    info = await panel.start(config, users, exclude_inbounds=[STATIC])
    assert info.started

    socket = node.run_dir / "core.sock"
    expected = [tag for tag in tags if tag != "API_INBOUND"]
    assert sorted(await inbound_tags(socket)) == sorted(expected)
    emails = {user.email for user in users}
    for inbound in config["inbounds"]:
        tag = inbound["tag"]
        if tag == "API_INBOUND":
            continue
        found = await inbound_users(socket, tag)
        assert found.keys() == ({"static@node"} if tag == STATIC else emails), tag
        assert set(found.values()) == {ACCOUNTS[kind(inbound)]}, tag

    # The same again: nothing changes, the core is left alone. Then with other users: the core is left alone too.
    core_before = core_pid(node)
    await panel.start(config, users, exclude_inbounds=[STATIC])
    assert core_pid(node) == core_before
    await panel.start(config, users[:150], exclude_inbounds=[STATIC])
    assert core_pid(node) == core_before
    for tag in expected:
        count = 1 if tag == STATIC else 150
        assert len(await inbound_users(socket, tag)) == count, tag


async def test_log_files_of_a_config_are_written_by_the_node(panel: PanelClient, tmp_path: Path) -> None:
    await panel.stop()  # a core that runs prints nothing new
    await panel.start(sample("balancer", tmp_path))
    error_log = tmp_path / "error.log"
    await eventually(
        lambda: error_log.exists() and "started" in error_log.read_text(), "the core's lines are in the file"
    )


async def test_another_base_config_is_another_core(node: NodeProcess, panel: PanelClient, tmp_path: Path) -> None:
    config = sample("panel-default", tmp_path)
    await panel.start(config, make_users(5, config_tags(config)))
    first = core_pid(node)
    config["inbounds"][0]["port"] = free_port()
    config["dns"] = {"servers": ["localhost"], "tag": "names"}
    await panel.start(config, make_users(5, config_tags(config)))
    assert first
    assert core_pid(node) not in (0, first)
    assert len(await inbound_users(node.run_dir / "core.sock", config["inbounds"][0]["tag"])) == 5
