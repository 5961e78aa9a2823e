"""Rules given to a real core as JSON and through its API route alike; and how the core's routing API behaves."""

from __future__ import annotations

import ipaddress
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.routing import Balancer, ListedRule, RoutingApi
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.running import RunningCore
from pgnode.xray.proto import network_pb2, router_pb2
from pgnode.xray.proto.routing_command_pb2 import RoutingContext
from pgnode.xray.rules.compile import compile_balancer, compile_rule, parse_rule
from tests.integration.xray.conftest import DEADLINE_SECONDS
from tests.support.geo_files import write_geoip, write_geosite
from tests.support.polling import eventually

OUTBOUNDS = [{"tag": "direct", "protocol": "freedom"}, *({"tag": f"out-{x}", "protocol": "freedom"} for x in "abc")]


def _ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def _contexts() -> list[RoutingContext]:
    """Connections of many kinds: each target with varying everything else."""
    domains = ["", "a.example", "www.a.example", "xa.example", "b.test", "plain", "ad.site.example", "site.example"]
    targets = ["", "10.1.2.3", "203.0.113.9", "2001:db8::1", "::ffff:10.1.2.3", "198.51.100.7"]
    rest: Iterator[dict[str, Any]] = itertools.cycle(
        [
            {"TargetPort": 80, "Network": network_pb2.TCP, "Protocol": "http1"},
            {"TargetPort": 443, "Network": network_pb2.UDP, "Protocol": "quic", "SourcePort": 53},
            {"TargetPort": 1500, "InboundTag": "in-a", "SourceIPs": [_ip("192.0.2.1")], "VlessRoute": 7},
            {"TargetPort": 0, "InboundTag": "in-b", "LocalIPs": [_ip("127.0.0.1")], "LocalPort": 9},
            {"TargetPort": 65535, "Attributes": {":method": "GET", "x": "1"}, "Network": network_pb2.UNIX},
        ]
    )
    return [
        RoutingContext(TargetDomain=domain, TargetIPs=[_ip(target)] if target else [], **next(rest))
        for domain in domains
        for target in targets
    ]


CONTEXTS = _contexts()

#: Rules without a target; each also gets a user of its own, so that one table holds all of them side by side.
RULES: list[dict[str, Any]] = [
    {"domain": ["full:a.example"]},
    {"domain": ["domain:a.example"]},
    {"domain": ["keyword:a.exam"]},
    {"domain": ["a.example"]},
    {"domain": ["FULL:a.example"]},
    {"domain": ["full:A.Example"]},
    {"domain": ["domain:A.EXAMPLE"]},
    {"domain": [r"regexp:^\w+\.a\.example$"]},
    {"domain": ["regexp:A"]},
    {"domain": ["dotless:"]},
    {"domain": ["dotless:lai"]},
    {"domain": "full:b.test,domain:site.example"},
    {"domain": ["full:a.example"], "domains": ["full:b.test"]},
    {"Domains": ["full:b.test"]},
    {"domain": ["geosite:demo"]},
    {"domain": ["geosite:DEMO@ads"]},
    {"domain": ["geosite:demo@!ads"]},
    {"domain": ["ext:geosite.dat:demo"]},
    {"domain": ["ext-site:geosite.dat:demo@ADS"]},
    {"domain": ["ext-domain:geosite.dat:demo", "full:plain"]},
    {"ip": ["10.0.0.0/8"]},
    {"ip": ["10.1.2.3"]},
    {"ip": "10.1.2.3, 203.0.113.0/24".replace(" ", "")},
    {"ip": ["10.255.255.255/8"]},
    {"ip": ["!10.0.0.0/8"]},
    {"ip": ["!!10.0.0.0/8"]},
    {"ip": ["!10.0.0.0/8", "!203.0.113.0/24"]},
    {"ip": ["10.0.0.0/8", "!203.0.113.0/24"]},
    {"ip": ["0.0.0.0/0"]},
    {"ip": ["::/0"]},
    {"ip": ["2001:db8::/32"]},
    {"ip": ["[2001:db8::1]"]},
    {"ip": ["::ffff:10.1.2.3"]},
    {"ip": ["10.1.2.3/"]},
    {"ip": ["geoip:demo"]},
    {"ip": ["geoip:!demo"]},
    {"ip": ["!geoip:demo"]},
    {"ip": ["!geoip:!DEMO"]},
    {"ip": ["ext:geoip.dat:demo", "10.0.0.0/8"]},
    {"ip": ["ext-ip:geoip.dat:!demo"]},
    {"port": 80},
    {"port": "80"},
    {"port": "80,443"},
    {"port": " 80-443 , 65535"},
    {"port": "1000-2000"},
    {"network": "tcp"},
    {"network": "TCP,udp"},
    {"network": ["udp", "unix"]},
    {"sourceIP": ["192.0.2.0/24"]},
    {"source": "192.0.2.1"},
    {"source": ["10.0.0.0/8"], "sourceIP": ["192.0.2.1"]},
    {"sourcePort": "50-60"},
    {"inboundTag": ["in-a"]},
    {"inboundTag": "in-a,in-b"},
    {"protocol": ["http"]},
    {"protocol": "http,quic"},
    {"attrs": {":method": "GET"}},
    {"attrs": {":METHOD": "^G", "x": "1"}},
    {"attrs": {"y": "1"}},
    {"localIP": ["127.0.0.0/8"]},
    {"localPort": "9"},
    {"vlessRoute": "0-7"},
    {"vlessRoute": 7},
    {"process": ["curl"]},
    {"localOS": ["linux"]},
    {"localOS": "windows,darwin"},
    {"network": "tcp", "domain": ["domain:a.example"], "port": "80", "ip": ["10.0.0.0/8"]},
    {"TYPE": "field", "domainMatcher": "linear", "Network": "tcp"},
    {"webhook": {"url": "http://127.0.0.1:9/x", "deduplication": 5, "headers": {"a": "b"}}, "localOS": "windows"},
]


class Cores:
    """Starts cores of which each has its own folder, and a folder of geo files for all."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        write_geosite(
            folder / "geosite.dat", {"demo": [("a.example", ""), ("site.example", "ads"), ("b.test", "other")]}
        )
        write_geoip(folder / "geoip.dat", {"demo": ["203.0.113.0/24", "2001:db8::/32"]})

    async def start(self, **parts: Any) -> tuple[RunningCore, RoutingApi]:
        run_dir = Path(tempfile.mkdtemp(dir=self._folder))
        services = ["RoutingService", "StatsService"] + (["ObservatoryService"] if parts.keys() - {"routing"} else [])
        config = {
            "log": {"loglevel": "warning"},
            "api": {"tag": "api", "listen": str(run_dir / "core.sock"), "services": services},
            "outbounds": OUTBOUNDS,
            **parts,
        }
        running = await EmbeddedCore(self._folder).spawn(json.dumps(config), run_dir)
        self._stack.callback(running.close)
        self._stack.push_async_callback(running.terminate, 5.0)
        api = await self._stack.enter_async_context(CoreApi(running.socket_path))
        await api.wait_ready(DEADLINE_SECONDS)
        return running, RoutingApi(api.channel, DEADLINE_SECONDS)


@pytest.fixture
async def cores(run_dir: Path) -> AsyncIterator[Cores]:
    async with AsyncExitStack() as stack:
        yield Cores(run_dir, stack)


def _table(rules: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**rule, "outboundTag": "out-a", "ruleTag": f"r{n}", "user": [f"u{n}"]} for n, rule in enumerate(rules)]


async def _routes(api: RoutingApi, rules: int, contexts: Sequence[RoutingContext]) -> list[list[bool]]:
    """For each rule which of the connections it takes."""
    found = []
    for number in range(rules):
        row = []
        for context in contexts:
            asked = RoutingContext()
            asked.CopyFrom(context)
            asked.User = f"u{number}"
            row.append(await api.test_route(asked, ["outbound"]) is not None)
        found.append(row)
    return found


async def test_a_rule_routes_alike_by_json_and_by_api(cores: Cores) -> None:
    table = _table(RULES)
    usual = [parse_rule(json.dumps(rule)) for rule in table]
    _, by_json = await cores.start(routing={"rules": table})
    _, by_usual_json = await cores.start(routing={"rules": usual})
    _, by_api = await cores.start(routing={})
    for rule in usual:
        await by_api.add_rules(router_pb2.Config(rule=[compile_rule(rule)]), append=True)
    assert await by_api.rules() == await by_json.rules()
    expected = await _routes(by_json, len(table), CONTEXTS)
    got = await _routes(by_api, len(table), CONTEXTS)
    assert [rule for rule, one, two in zip(RULES, expected, got, strict=True) if one != two] == []
    again = await _routes(by_usual_json, len(table), CONTEXTS[::3])
    assert [rule for rule, one, two in zip(RULES, expected, again, strict=True) if one[::3] != two] == []
    # The battery tells rules apart: nearly all of them take some connections and leave others.
    assert sum(any(row) and not all(row) for row in expected) > 50


_DOMAINS = st.sampled_from(
    ["a.example", "A.example", "www.a", "b", "plain", "site.example", ".", "x-y", "ä.example", "*"]
)
_DOMAIN = st.builds(
    lambda kind, name: kind + name, st.sampled_from(["", "full:", "domain:", "keyword:", "regexp:^"]), _DOMAINS
).filter(lambda text: text != "regexp:^*")
_ADDRESS = st.builds(
    lambda bang, base, bits: (
        f"{bang}{base}/{bits}" if bits <= ipaddress.ip_address(base).max_prefixlen else bang + base
    ),
    st.sampled_from(["", "", "!", "!!"]),
    st.sampled_from(["10.1.2.3", "10.0.0.0", "203.0.113.255", "2001:db8::", "::"]),
    st.integers(0, 128),
)
_PORTS = st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), min_size=1, max_size=3).map(
    lambda pairs: ",".join(f"{low}-{high}" if low != high else str(low) for low, high in pairs)
)
_RULE = st.fixed_dictionaries(
    {"network": st.sampled_from(["tcp", "udp", "tcp,udp", "tcp,udp,unix"])},
    optional={
        "domain": st.lists(_DOMAIN, min_size=1, max_size=3),
        "ip": st.lists(_ADDRESS, min_size=1, max_size=3),
        "port": _PORTS,
        "source": st.lists(_ADDRESS, min_size=1, max_size=2),
        "sourcePort": _PORTS,
        "inboundTag": st.lists(st.sampled_from(["in-a", "in-b", "in"]), min_size=1),
        "protocol": st.lists(st.sampled_from(["http", "quic", "ht"]), min_size=1),
        "vlessRoute": _PORTS,
    },
)


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(rules=st.lists(_RULE, min_size=60, max_size=60))
async def test_any_rules_route_alike_by_json_and_by_api(rules: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory(prefix="pgn") as folder:
        async with AsyncExitStack() as stack:
            cores = Cores(Path(folder), stack)
            table = _table(rules)
            _, by_json = await cores.start(routing={"rules": table})
            _, by_api = await cores.start(routing={})
            await by_api.add_rules(router_pb2.Config(rule=[compile_rule(rule) for rule in table]), append=False)
            contexts = CONTEXTS[::3]
            expected = await _routes(by_json, len(table), contexts)
            got = await _routes(by_api, len(table), contexts)
            assert [rule for rule, one, two in zip(rules, expected, got, strict=True) if one != two] == []


def _config(*rules: dict[str, Any], balancers: Sequence[dict[str, Any]] = ()) -> router_pb2.Config:
    return router_pb2.Config(
        rule=[compile_rule(rule) for rule in rules], balancing_rule=[compile_balancer(item) for item in balancers]
    )


async def _refused(call: Callable[[], Any]) -> str:
    with pytest.raises(CoreApiError) as caught:
        await call()
    assert caught.value.kind is not ErrorKind.UNAVAILABLE
    return str(caught.value)


A = {"ruleTag": "a", "outboundTag": "out-a", "domain": ["full:a.example"]}
B = {"outboundTag": "out-b", "domain": ["full:b.example"]}
BAL = {"tag": "bal", "selector": ["out-"]}
BALANCED = {"ruleTag": "c", "balancerTag": "bal", "domain": ["full:c.example"]}


async def test_how_the_cores_table_behaves(cores: Cores) -> None:
    running, api = await cores.start(routing={"rules": [A, B, BALANCED], "balancers": [BAL]})
    before = [ListedRule("out-a", "a"), ListedRule("out-b", ""), ListedRule("", "c")]
    assert await api.rules() == before
    bad = {"ruleTag": "bad", "outboundTag": "out-a", "domain": ["regexp:("]}
    for append in (True, False):
        text = await _refused(lambda append=append: api.add_rules(_config(B, bad), append=append))  # type: ignore[misc]
        assert "missing closing )" in text
        assert await api.rules() == before, "a refused table changes nothing"
    assert "duplicate ruleTag a" in await _refused(lambda: api.add_rules(_config(A), append=True))
    lost = {"ruleTag": "x", "balancerTag": "nowhere", "network": "tcp"}
    assert "balancer nowhere not found" in await _refused(lambda: api.add_rules(_config(lost), append=True))
    missing = {"ruleTag": "g", "outboundTag": "out-a", "domain": ["ext:none.dat:x"]}
    assert "none.dat" in await _refused(lambda: api.add_rules(_config(missing), append=True))
    unknown_code = {"ruleTag": "g", "outboundTag": "out-a", "ip": ["geoip:nobody"]}
    assert "NOBODY" in await _refused(lambda: api.add_rules(_config(unknown_code), append=True))
    await api.remove_rule("unknown")
    await api.add_rules(_config({**A, "ruleTag": "far", "outboundTag": "not there"}), append=True)
    await api.remove_rule("far")
    assert await api.rules() == before
    # Replacing takes the balancers as well.
    assert "balancer bal not found" in await _refused(lambda: api.add_rules(_config(BALANCED), append=False))
    await api.add_rules(_config(BALANCED, balancers=[BAL]), append=False)
    assert await api.rules() == before[2:]
    assert running.is_running()


async def test_a_route_that_no_rule_decides(cores: Cores) -> None:
    _, api = await cores.start(routing={"rules": [A]})
    assert await api.test_route(RoutingContext(TargetDomain="z.example")) is None
    found = await api.test_route(RoutingContext(TargetDomain="a.example", InboundTag="in", Network=network_pb2.UDP))
    assert found is not None
    assert (found.OutboundTag, found.InboundTag, found.TargetDomain) == ("out-a", "in", "a.example")
    only = await api.test_route(RoutingContext(TargetDomain="a.example", InboundTag="in"), ["outbound"])
    assert only is not None
    assert (only.OutboundTag, only.InboundTag) == ("out-a", "")


async def test_a_balancer_is_told_and_overridden(cores: Cores) -> None:
    _, api = await cores.start(routing={"rules": [BALANCED], "balancers": [BAL]})
    assert await api.balancer("bal") == Balancer("", ("out-a", "out-b", "out-c"))
    assert await api.balancer("nobody") is None
    assert await api.override("bal", "out-c")
    assert await api.balancer("bal") == Balancer("out-c", ("out-a", "out-b", "out-c"))
    found = await api.test_route(RoutingContext(TargetDomain="c.example"))
    assert found is not None
    assert found.OutboundTag == "out-c"
    await api.add_rules(_config(BALANCED, balancers=[BAL]), append=False)
    state = await api.balancer("bal")
    assert state is not None
    assert state.override == "", "replacing the table forgets overrides"
    assert not await api.override("nobody", "out-c")
    assert await api.override("bal", "")


_STRATEGIES = [
    {"type": "leastPing"},
    {"type": "roundRobin"},
    {"type": "leastLoad"},
    {
        "type": "leastLoad",
        "settings": {
            "costs": [{"regexp": True, "match": "^out-a", "value": 2.5}],
            "baselines": ["1s"],
            "expected": 1,
            "maxRTT": "1m",
            "tolerance": 0.5,
        },
    },
]


async def test_balancers_of_every_strategy_are_taken(cores: Cores) -> None:
    """Among them leastLoad without settings, which ends the core where the message has none."""
    balancers = [{"tag": f"b{n}", "selector": ["out-"], "strategy": one} for n, one in enumerate(_STRATEGIES)]
    rules = [{"balancerTag": f"b{n}", "ruleTag": f"r{n}", "network": "tcp"} for n in range(len(balancers))]
    running, api = await cores.start(routing={})
    await api.add_rules(_config(*rules, balancers=balancers), append=False)
    assert [await api.balancer(f"b{n}") is not None for n in range(len(balancers))] == [True] * len(balancers)
    assert running.is_running()


async def test_a_bad_expression_for_an_attribute_ends_the_core(cores: Cores) -> None:
    """Why such rules are tried elsewhere first (``needs_trial``); the day this fails, that trial can go."""
    running, api = await cores.start(routing={})
    with pytest.raises(CoreApiError) as caught:
        await api.add_rules(_config({"outboundTag": "out-a", "attrs": {":method": "("}}), append=True)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    await eventually(lambda: not running.is_running(), "the core's end")


async def test_a_config_without_routing_has_no_router(cores: Cores) -> None:
    _, api = await cores.start()
    assert "not enough information" in await _refused(lambda: api.add_rules(_config(A), append=True))


@pytest.mark.parametrize("burst", [False, True])
async def test_what_is_observed_is_told(cores: Cores, burst: bool) -> None:
    if burst:
        ping = {"destination": "http://127.0.0.1:9/", "interval": "1s", "sampling": 1, "timeout": "1s"}
        part: dict[str, Any] = {"burstObservatory": {"subjectSelector": ["out-"], "pingConfig": ping}}
    else:
        part = {"observatory": {"subjectSelector": ["out-"], "probeURL": "http://127.0.0.1:9/", "probeInterval": "1s"}}
    _, api = await cores.start(routing={}, **part)
    statuses = await eventually(api.observed, "a first observation", DEADLINE_SECONDS)
    assert statuses[0].outbound_tag.startswith("out-")
    assert not statuses[0].alive


async def test_nothing_is_observed_without_an_observatory(cores: Cores) -> None:
    _, api = await cores.start(routing={})
    assert await api.observed() == []
