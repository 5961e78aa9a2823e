"""A config with which a core comes up and disturbs nobody."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from pgnode.testing.configs import make_config, make_inbound
from pgnode.xray.config.document import render
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.rehearsal import leaves_out_parts, rehearsal
from tests.unit.xray.config.configs import parse, sample

LIMIT_SECONDS = 60.0


def moved(inbound: dict[str, Any]) -> dict[str, Any]:
    [found] = rehearsal({"inbounds": [inbound]})["inbounds"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("listen", [None, "", "0.0.0.0", "::", "localhost", "192.0.2.1", "env:ADDRESS"])
def test_addresses_become_unknown_ones_and_ports_stay(listen: str | None) -> None:
    found = moved({"tag": "a", "port": 443} | ({"listen": listen} if listen is not None else {}))
    assert found["listen"].startswith("127.")
    assert found["listen"].split(".")[1] not in ("0", "1")
    assert found["port"] == 443
    assert moved({"port": "1000-2000,5"})["port"] == 1000
    assert moved({"port": "env:PORT"})["port"] == "env:PORT"


@pytest.mark.parametrize("listen", ["/run/x.sock", "@name"])
def test_unix_sockets_become_abstract_ones(listen: str) -> None:
    found = moved({"listen": listen, "port": 5})
    assert found["listen"].startswith("@pgnode-")
    assert "port" not in found


def test_what_the_core_must_judge_stays() -> None:
    assert moved({"listen": "node.example", "port": 1})["listen"] == "node.example"
    assert rehearsal({"inbounds": [5], "outbounds": [5]})["inbounds"] == [5]


def test_what_would_act_on_the_world_is_left_out() -> None:
    document = {
        "log": {"access": "/var/log/a.log", "error": "/var/log/e.log", "loglevel": "none", "dnsLog": True},
        "api": {"tag": "A", "listen": "/run/core.sock", "services": ["StatsService"]},
        "inbounds": [{"protocol": "TUN"}, {"protocol": "vless", "port": 1}],
        "outbounds": [{"tag": "b", "protocol": "vless", "settings": {"vnext": [{"users": [{"Reverse": {}}]}]}}],
        "observatory": {"subjectSelector": ["d"], "probeInterval": "1s"},
        "metrics": {"tag": "m", "listen": "127.0.0.1:5"},
    }
    before = copy.deepcopy(document)
    found = rehearsal(document)
    assert document == before
    assert found["log"] == {"access": "none", "error": "", "loglevel": "warning", "dnsLog": True}
    assert found["api"]["listen"].startswith("@pgnode-")
    assert [item["protocol"] for item in found["inbounds"]] == ["vless"]
    assert found["outbounds"] == [{"tag": "b", "protocol": "blackhole"}]
    assert found["observatory"] == {"subjectSelector": [], "probeInterval": "1s"}
    assert found["metrics"]["listen"].startswith("127.")
    assert found["metrics"]["listen"].endswith(":5")
    assert rehearsal({"metrics": {"listen": "x"}})["metrics"] == {}


@pytest.mark.parametrize("selectors", [5, [5], {}, "exit", ["a", None]])
def test_selectors_that_the_core_refuses_stay_for_it_to_refuse(selectors: object) -> None:
    assert rehearsal({"observatory": {"subjectSelector": selectors}})["observatory"] == {"subjectSelector": selectors}
    assert rehearsal({"observatory": {}})["observatory"] == {"subjectSelector": []}


def test_whether_parts_are_left_out() -> None:
    assert leaves_out_parts({"outbounds": [5, {"settings": {"reverse": {}}}]})
    assert leaves_out_parts({"inbounds": [5, {"protocol": "tun"}]})
    assert not leaves_out_parts({"inbounds": [{"protocol": "vless"}], "outbounds": [{"protocol": "freedom"}]})
    assert not leaves_out_parts({"outbounds": 5})
    assert not leaves_out_parts({})


@pytest.mark.parametrize("name", ["wide", "balancer", "panel-default"])
async def test_the_real_core_comes_up_with_it(name: str) -> None:
    document = json.loads(render(parse(sample(name)), {}))
    up, _, output = await EmbeddedCore().rehearse(json.dumps(rehearsal(document)), LIMIT_SECONDS)
    assert up, output


async def test_the_real_core_that_does_not_come_up() -> None:
    config = make_config(
        [make_inbound("h", "hysteria", stream={"network": "hysteria", "hysteriaSettings": {"version": 2}}, version=2)]
    )
    up, code, _ = await EmbeddedCore().rehearse(json.dumps(rehearsal(config)), LIMIT_SECONDS)
    assert (up, code) == (False, 255)
