"""Routing and latency on one node: rules that callers add, what becomes of them when parts die, balancers, observed outbounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.message import Message

from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError
from pgnode.testing.ports import free_port
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST
from tests.support.geo_files import write_geoip
from tests.support.polling import eventually
from tests.support.probe_target import answer_probe
from tests.support.processes import core_pid, kill, stopped
from tests.support.scrape import scrape

GUARD = "PG_NODE_MALFORMED_DOMAIN_GUARD"
#: As the config says it, guard in front; the first of the panel's own has no tag.
CONFIGURED = [("BLOCK", GUARD), ("DIRECT", ""), ("", "vip"), ("", "rest")]
BLOCKED = {"ruleTag": "blocked", "user": ["user0@demo"], "outboundTag": "BLOCK"}
NOT_YET = (PanelError, NoAnswerError, OSError)


@dataclass
class Stage:
    node: NodeProcess
    panel: PanelClient
    client: ClientCore
    config: dict[str, Any]

    async def start(self, **routing: Any) -> None:
        config = {**self.config, "routing": {**self.config["routing"], **routing}}
        await self.panel.start(config, make_users(2, ["VLESS"]))

    async def call(self, method: str, path: str, message: Message | None = None) -> None:
        await self.panel.call(method, path, message, pb.Empty)

    async def rules(self) -> list[tuple[str, str]]:
        found = await self.panel.call("GET", "/routing/rules", None, pb.RoutingRulesResponse)
        return [(rule.outbound_tag, rule.rule_tag) for rule in found.rules]

    async def add(self, rule: Any, *, reset: bool = False) -> None:
        text = rule if isinstance(rule, str) else json.dumps(rule)
        await self.call("PUT", "/routing/rules", pb.AddRoutingRuleRequest(rule=text, should_reset=reset))

    async def remove(self, tag: str) -> None:
        await self.call("DELETE", "/routing/rules", pb.RemoveRoutingRuleRequest(rule_tag=tag))

    async def balancer(self, tag: str) -> pb.BalancerInfoResponse:
        return await self.panel.call(
            "POST", "/routing/balancer", pb.BalancerInfoRequest(tag=tag), pb.BalancerInfoResponse
        )

    async def override(self, balancer: str, target: str) -> None:
        message = pb.OverrideBalancerTargetRequest(balancer_tag=balancer, target=target)
        await self.call("PUT", "/routing/balancer/override", message)

    async def route(self, **asked: Any) -> pb.RouteResult:
        return await self.panel.call("POST", "/routing/test", pb.TestRouteRequest(**asked), pb.RouteResult)

    async def latency(self, name: str = "") -> dict[str, pb.Latency]:
        found = await self.panel.call("GET", "/stats/latency", pb.LatencyRequest(name=name), pb.LatencyResponse)
        return {latency.name: latency for latency in found.latencies}

    async def refused(self, call: Any) -> tuple[int, str]:
        with pytest.raises(PanelError) as caught:
            await call
        return caught.value.status, caught.value.text


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeProcess]:
    """A node with a geo file of its own."""
    assets = tmp_path_factory.mktemp("assets")
    write_geoip(assets / "geoip.dat", {"demo": ["203.0.113.0/24"]})
    env = {**FAST, "XRAY_ASSETS_PATH": str(assets), "CORE_CALL_TIMEOUT_SECONDS": "6"}
    async with NodeProcess(env=env) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole_stage(
    node: NodeProcess, panel: PanelClient, target: Target, balancer_sample: dict[str, Any]
) -> AsyncIterator[Stage]:
    server = await asyncio.start_server(answer_probe, "127.0.0.1", 0)
    config = balancer_sample
    config["log"] = {"loglevel": "warning"}
    config["inbounds"][0]["port"] = free_port()
    allowed = {"finalRules": [{"action": "allow", "ip": ["127.0.0.0/8"]}]}
    for outbound in config["outbounds"]:
        if outbound["tag"] in ("DIRECT", "exit-1", "exit-2"):
            # Two of the exits are no servers elsewhere but the same way out, so that they can be told alive.
            outbound |= {"protocol": "freedom", "settings": allowed}
    config["observatory"] |= {
        "probeURL": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/204",
        "probeInterval": "1s",
    }
    links = [link(config["inbounds"][0], user, name=user.email) for user in make_users(2, ["VLESS"])]
    async with server, ClientCore(links, target) as client:
        yield Stage(node, panel, client, config)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(whole_stage: Stage) -> Stage:
    """A running core with the rules and balancers of its config; what a test before changed is forgotten."""
    await whole_stage.start()
    fixed = [(await whole_stage.balancer(tag)).override_target for tag in ("exits", "spread")]
    if await whole_stage.rules() != CONFIGURED or any(fixed):
        await whole_stage.start(domainStrategy="IPIfNonMatch")
        await whole_stage.start()
    assert await whole_stage.rules() == CONFIGURED
    return whole_stage


async def test_a_rule_is_added_and_traffic_goes_by_it(stage: Stage) -> None:
    await stage.client.move("user0@demo", 100, 100)
    private = {"ruleTag": "before", "user": "user0@demo", "outboundTag": "BLOCK", "ip": ["geoip:private"]}
    await stage.add(private, reset=True)
    assert await stage.rules() == [("BLOCK", GUARD), ("BLOCK", "before")]
    assert await stage.client.refused("user0@demo")
    await stage.client.move("user1@demo", 100, 100)
    assert (await stage.route(user="user0@demo", target_ip="127.0.0.1")).outbound_tag == "BLOCK"
    await stage.remove("before")
    await stage.client.move("user0@demo", 100, 100)


async def test_rules_are_appended_and_replaced(stage: Stage) -> None:
    await stage.add(BLOCKED)
    assert await stage.rules() == [*CONFIGURED, ("BLOCK", "blocked")]
    await stage.add(BLOCKED)
    assert await stage.rules() == [*CONFIGURED, ("BLOCK", "blocked")], "the same rule again changes nothing"
    await stage.add({"domain": ["full:a.example"], "balancerTag": "exits"})
    untagged = (await stage.rules())[-1]
    assert untagged[1].startswith("pgnode-"), "a rule without a tag gets one, by which it can be removed"
    await stage.remove("vip")
    await stage.remove(untagged[1])
    assert await stage.rules() == [CONFIGURED[0], CONFIGURED[1], CONFIGURED[3], ("BLOCK", "blocked")]
    await stage.override("exits", "exit-2")
    await stage.add({"ruleTag": "only", "network": "tcp,udp", "balancerTag": "exits"}, reset=True)
    assert await stage.rules() == [CONFIGURED[0], ("", "only")], "the node's own rule stays in front"
    assert (await stage.balancer("exits")).override_target == "exit-2", (
        "balancers stay, and so does what they are fixed to"
    )
    assert (await stage.route(network="tcp", target_domain="z.example")).outbound_tag == "exit-2"


REFUSED: list[tuple[Any, str]] = [
    ("", "empty rule: it must hold one Xray routing rule as JSON"),
    ("{", "rule is not valid JSON"),
    ({**BLOCKED, "extra": 1}, "rule: unknown field 'extra'"),
    ({**BLOCKED, "port": []}, "rule: port must be a number or a string"),
    ({**BLOCKED, "ruleTag": "vip"}, "duplicate ruleTag 'vip': remove that rule first"),
    ({**BLOCKED, "ruleTag": GUARD}, f"ruleTag '{GUARD}' is the node's own"),
    (
        {"network": "tcp", "balancerTag": "nowhere"},
        "rule: unknown balancerTag 'nowhere'; the config has 'exits', 'spread'",
    ),
    ({**BLOCKED, "domain": ["regexp:("]}, "the core refuses the rule: error parsing regexp"),
    ({**BLOCKED, "domain": ["geosite:cn"]}, "geo file 'geosite.dat' is missing ('geosite:cn' needs it)"),
    ({**BLOCKED, "ip": ["geoip:nobody"]}, "the core refuses the rule: "),
    (
        {**BLOCKED, "attrs": {":method": "("}},
        "rule: the core refuses it: a value in attrs is no regular expression",
    ),
]


@pytest.mark.parametrize("reset", [False, True])
async def test_a_rule_that_is_refused_leaves_the_rules_as_they_were(stage: Stage, reset: bool) -> None:
    core = core_pid(stage.node)
    for rule, text in REFUSED:
        if reset and text.startswith("duplicate"):
            continue
        status, found = await stage.refused(stage.add(rule, reset=reset))
        assert (status, found[: len(text)]) == (400, text)
        assert await stage.rules() == CONFIGURED
        assert (await stage.balancer("exits")).principle_target
    assert core_pid(stage.node) == core


async def test_what_is_not_there_is_not_found(stage: Stage) -> None:
    assert await stage.refused(stage.remove("nobody")) == (404, "routing rule 'nobody' not found.")
    assert await stage.refused(stage.balancer("nobody")) == (404, "balancer 'nobody' not found.")
    assert await stage.refused(stage.override("nobody", "DIRECT")) == (404, "balancer 'nobody' not found.")
    assert await stage.refused(stage.override("exits", "nobody")) == (404, "outbound 'nobody' not found.")
    for call in (stage.remove(""), stage.balancer(""), stage.override("", "DIRECT")):
        status, text = await stage.refused(call)
        assert (status, text[:5]) == (400, "empty")
    status, text = await stage.refused(stage.remove(GUARD))
    assert (status, text) == (400, f"routing rule '{GUARD}' is the node's own and stays")


async def _core_again(stage: Stage, before: int) -> None:
    async def another() -> bool:
        return (await stage.panel.info()).started and core_pid(stage.node) not in (0, before)

    await eventually(another, "another core runs", errors=NOT_YET)


async def test_rules_come_back_with_a_core_and_with_the_node(stage: Stage) -> None:
    await stage.add({"ruleTag": "geo", "ip": ["geoip:demo"], "outboundTag": "BLOCK", "port": 80})
    await stage.add({"ruleTag": "method", "attrs": {":method": "GET"}, "outboundTag": "BLOCK"})
    await stage.remove("vip")
    await stage.add({**BLOCKED, "ruleTag": "last"})
    await stage.override("spread", "exit-2")
    wanted = [*CONFIGURED[:2], CONFIGURED[3], ("BLOCK", "geo"), ("BLOCK", "method"), ("BLOCK", "last")]
    assert await stage.rules() == wanted

    async def all_there() -> None:
        assert await stage.rules() == wanted
        assert (await stage.balancer("spread")).override_target == "exit-2"
        geo = await stage.route(target_ip="203.0.113.5", target_port=80)
        assert geo.outbound_tag == "BLOCK"

    first = core_pid(stage.node)
    kill(first)
    await _core_again(stage, first)
    await all_there()

    await stage.node.stop()
    await stage.node.start()
    await _core_again(stage, 0)
    await all_there()

    # A supervisor that dies leaves the core alone, and the next one takes it over.
    second = core_pid(stage.node)
    kill(stage.node.pid)
    await stage.node.wait()
    await stage.node.start()
    await _core_again(stage, 0)
    assert core_pid(stage.node) == second
    await all_there()

    await stage.start()
    await all_there()
    await stage.panel.stop()
    await stage.start()
    await all_there()

    await stage.start(domainStrategy="IPOnDemand")
    assert await stage.rules() == CONFIGURED, "another config has its own rules"
    assert (await stage.balancer("spread")).override_target == ""
    await stage.start()
    assert await stage.rules() == CONFIGURED, "and what was forgotten does not come back"


async def test_a_config_with_one_outbound_more_is_another_config(stage: Stage) -> None:
    """Whether that takes a new core or not."""
    await stage.add(BLOCKED)
    await stage.remove("vip")
    await stage.add({"ruleTag": "vip", "network": "udp", "balancerTag": "spread"})
    await stage.override("exits", "exit-2")
    more = {"tag": "more", "protocol": "blackhole"}
    await stage.panel.start({**stage.config, "outbounds": [*stage.config["outbounds"], more]}, make_users(2, ["VLESS"]))
    assert await stage.rules() == CONFIGURED
    assert (await stage.balancer("exits")).override_target == ""
    assert (await stage.route(user="vip@node", network="tcp")).outbound_tag in ("exit-1", "exit-2")


async def test_a_core_that_hangs_gets_in_order_by_itself(stage: Stage) -> None:
    """The call fails, and the core takes the rule all the same when it goes on: then it is put out again."""
    core = core_pid(stage.node)
    async with stopped(core):
        status, text = await stage.refused(stage.add(BLOCKED))
        assert (status, text[:31]) == (503, "failed to add the routing rule:")
        status, text = await stage.refused(stage.rules())
        assert (status, text[:29]) == (503, "failed to list routing rules:")
        assert (await stage.panel.info()).started

    await eventually(lambda: "routing was repaired" in stage.node.output_text, "the routing is looked after")
    assert await stage.rules() == CONFIGURED
    assert core_pid(stage.node) == core


async def test_a_config_that_does_not_start_leaves_the_added_rules(stage: Stage) -> None:
    await stage.add(BLOCKED)
    config = {**stage.config, "routing": {"rules": [{"outboundTag": "DIRECT"}]}}
    with pytest.raises(PanelError):
        await stage.panel.start(config, make_users(2, ["VLESS"]))
    assert await stage.rules() == [*CONFIGURED, ("BLOCK", "blocked")]


async def test_a_route_is_tested(stage: Stage) -> None:
    found = await stage.route(inbound_tag="VLESS", network="TCP", target_domain="a.example", user="vip@node")
    assert found.outbound_tag in ("exit-1", "exit-2")
    assert (found.inbound_tag, found.network, found.target_domain) == ("VLESS", "tcp", "a.example")
    assert (await stage.route(target_ip="10.0.0.1")).outbound_tag == "DIRECT"
    assert (await stage.route(target_domain="x" * 64 + ".example")).outbound_tag == "BLOCK"
    nobody = await stage.route(network="udp", target_domain="z.example", target_port=53)
    assert (nobody.outbound_tag, nobody.network) == ("DIRECT", "udp"), "no rule decides: the first outbound"
    only = await stage.route(target_domain="z.example", field_selectors=["outbound"])
    assert (only.outbound_tag, only.target_domain) == ("DIRECT", "")
    for asked, text in (
        ({"network": "sctp"}, "unknown network 'sctp'"),
        ({"target_ip": "here"}, "target_ip 'here' is no IP address"),
        ({"target_port": 70000}, "target_port 70000 is no port"),
    ):
        status, said = await stage.refused(stage.route(**asked))
        assert (status, said[: len(text)]) == (400, text)


async def test_a_balancer_is_overridden_and_let_go(stage: Stage) -> None:
    assert list((await stage.balancer("spread")).principle_target) == ["exit-1", "exit-2"]
    await stage.override("spread", "exit-1")
    assert (await stage.balancer("spread")).override_target == "exit-1"
    routes = {(await stage.route(user="vip@node")).outbound_tag for _ in range(4)}
    assert routes == {"exit-1"}
    await stage.override("spread", "")
    assert (await stage.balancer("spread")).override_target == ""
    routes = {(await stage.route(user="vip@node")).outbound_tag for _ in range(4)}
    assert routes == {"exit-1", "exit-2"}


@pytest.mark.parametrize("burst", [False, True])
async def test_latency_of_observed_outbounds(whole_stage: Stage, node: NodeProcess, burst: bool) -> None:
    stage = whole_stage
    probe = stage.config["observatory"]["probeURL"]
    config = {**stage.config}
    if burst:
        ping = {"destination": probe, "interval": "1s", "sampling": 2, "timeout": "2s"}
        config["burstObservatory"] = {
            "subjectSelector": config.pop("observatory")["subjectSelector"],
            "pingConfig": ping,
        }
    await stage.panel.start(config, make_users(2, ["VLESS"]))

    async def all_seen() -> dict[str, pb.Latency]:
        found = await stage.latency()
        alive = {name for name, latency in found.items() if latency.alive}
        return found if alive == {"DIRECT", "exit-1", "exit-2"} and "exit-3" in found else {}

    found = await eventually(all_seen, "every outbound was observed", errors=(PanelError,))
    assert set(found) == {"DIRECT", "exit-1", "exit-2", "exit-3"}, "BLOCK and DNS are left out"
    assert {latency.source for latency in found.values()} == {"xray-observatory"}
    # The core's burst observatory knows no times.
    assert burst or found["DIRECT"].last_seen_time > 0
    assert list(await stage.latency("exit-1")) == ["exit-1"]
    delays = {
        dict(labels)["tag"]: seconds
        for (name, labels), seconds in (await scrape(node)).items()
        if name == "pgnode_outbound_delay_seconds"
    }
    assert delays.keys() == {"DIRECT", "exit-1", "exit-2"}, "those that answer"
    assert all(0 <= seconds < 5 for seconds in delays.values())
    for name in ("nobody", "BLOCK"):
        assert await stage.refused(stage.latency(name)) == (404, f"latency of outbound '{name}' not found.")


async def test_nothing_observed(whole_stage: Stage) -> None:
    config = {name: part for name, part in whole_stage.config.items() if name not in ("observatory", "routing")}
    await whole_stage.panel.start(config, make_users(2, ["VLESS"]))
    assert await whole_stage.refused(whole_stage.latency()) == (503, "xray outbound latency is not available")
    await whole_stage.panel.stop()
    for call in (whole_stage.latency(), whole_stage.rules(), whole_stage.add(BLOCKED), whole_stage.route()):
        assert await whole_stage.refused(call) == (503, "backend not initialized")
