"""A scratch core: the config it gets, what is put back afterwards, and what is left of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from pgnode.errors import StartFailedError
from pgnode.testing.configs import make_config, make_inbound
from pgnode.xray.config.diff import ConfigDiff
from pgnode.xray.config.document import BaseConfig, parse_config
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.scratch import Encoded, encode_parts, put_back, scratch_document
from pgnode.xray.proto import core_pb2, net_pb2, proxyman_pb2

DEADLINE_SECONDS = 60.0


def base_of(config: dict[str, Any], run_dir: Path) -> BaseConfig:
    return parse_config(json.dumps(config), exclude_inbounds=(), api_socket=str(run_dir / "core.sock"), assets_dir=None)


def test_its_config_binds_nothing_of_the_config() -> None:
    specs = {
        "tcp": InboundSpec("tcp", "vless", "192.0.2.1", ((443, 443),)),
        "udp": InboundSpec("udp", "hysteria", "", ((443, 443),), kinds=frozenset({"udp"})),
    }
    inbounds = [{"tag": "tcp", "port": 443, "listen": "192.0.2.1"}, {"tag": "udp", "port": 443}]
    document = scratch_document(inbounds, [{"tag": "out", "protocol": "freedom"}], specs, "/run/scratch.sock", [5])
    tcp, udp = document["inbounds"]
    assert "port" not in tcp
    assert tcp["listen"].startswith("@pgnode-")
    assert (udp["listen"], udp["port"]) == ("127.0.0.1", 5)
    assert document["api"]["listen"] == "/run/scratch.sock"
    assert [outbound["protocol"] for outbound in document["outbounds"]] == ["blackhole", "freedom"]


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("192.0.2.1", net_pb2.IPOrDomain(ip=bytes([192, 0, 2, 1]))),
        ("localhost", net_pb2.IPOrDomain(domain="localhost")),
        ("/run/x.sock", net_pb2.IPOrDomain(domain="/run/x.sock")),
        ("", None),
    ],
)
def test_address_and_ports_are_put_back(listen: str, address: net_pb2.IPOrDomain | None) -> None:
    inbound = core_pb2.InboundHandlerConfig(tag="in")
    there = proxyman_pb2.ReceiverConfig(listen=net_pb2.IPOrDomain(domain="@scratch"))
    inbound.receiver_settings.value = there.SerializeToString()
    found = put_back(inbound, InboundSpec("in", "vless", listen, ((80, 80), (90, 99))))
    receiver = proxyman_pb2.ReceiverConfig.FromString(found.receiver_settings.value)
    assert receiver.listen == (address or net_pb2.IPOrDomain())
    ports = [(item.From, item.To) for item in receiver.port_list.range]
    assert ports == ([] if listen.startswith("/") else [(80, 80), (90, 99)])
    assert inbound.receiver_settings.value == there.SerializeToString(), "a copy"


async def test_nothing_to_encode_starts_nothing(run_dir: Path) -> None:
    base = base_of(make_config([make_inbound("VLESS", "vless")]), run_dir)
    core = ExecutableCore("/none")
    assert await encode_parts(core, base, ConfigDiff(rules=True), run_dir / "s.sock", DEADLINE_SECONDS) == Encoded(
        {}, {}
    )


async def test_the_real_core_encodes_and_leaves_nothing(run_dir: Path) -> None:
    base = base_of(make_config([make_inbound("VLESS", "vless"), make_inbound("other", "trojan")]), run_dir)
    parts = ConfigDiff(add_inbounds=("VLESS",), add_outbounds=("DIRECT",))
    encoded = await encode_parts(EmbeddedCore(), base, parts, run_dir / "s.sock", DEADLINE_SECONDS)
    assert (set(encoded.inbounds), set(encoded.outbounds)) == ({"VLESS"}, {"DIRECT"})
    [spec] = [spec for spec in base.inbounds if spec.tag == "VLESS"]
    receiver = proxyman_pb2.ReceiverConfig.FromString(encoded.inbounds["VLESS"].receiver_settings.value)
    assert [(item.From, item.To) for item in receiver.port_list.range] == list(spec.ports)
    assert os.listdir(run_dir) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("cat > /dev/null; echo broken; exit 1", "scratch core did not come up: broken"),
        ("exec <&-; exec sleep 60", "scratch core did not come up: no reason given"),
    ],
)
async def test_one_that_does_not_come_up(run_dir: Path, tmp_path: Path, script: str, said: str) -> None:
    path = tmp_path / "xray"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    base = base_of(make_config([make_inbound("VLESS", "vless")]), run_dir)
    parts = ConfigDiff(add_inbounds=("VLESS",))
    with pytest.raises(StartFailedError, match=said):
        await encode_parts(ExecutableCore(path), base, parts, run_dir / "s.sock", 1.0)
    assert os.listdir(run_dir) == []
    assert not [child for child in psutil.Process().children() if "sleep" in child.name()]


async def test_one_that_cannot_be_run(run_dir: Path) -> None:
    base = base_of(make_config([make_inbound("VLESS", "vless")]), run_dir)
    parts = ConfigDiff(add_inbounds=("VLESS",))
    # pdeath's helper is what is run, so the core's own absence is seen in its output.
    with pytest.raises(StartFailedError, match="scratch core"):
        await encode_parts(ExecutableCore(run_dir / "none"), base, parts, run_dir / "s.sock", 1.0)
