"""Calls in JSON: of the methods, and of the maintenance API. Pure."""

from __future__ import annotations

from random import Random

from google.protobuf.json_format import MessageToDict

from pgnode.api.methods import METHODS
from pgnode.wire import service_pb2 as pb
from tests.fuzz import configs, messages, values
from tests.fuzz.cases import HttpCase
from tests.fuzz.http_requests import CALM, JSON, PROTOBUF, call
from tests.fuzz.rules import rule
from tests.fuzz.values import Json

#: Jobs that end with an error before they touch anything, since the fuzzed nodes can download nothing. A reset is for the
#: second node.
_JOBS = {
    ("POST", "/node/core_update"): {"core_version": "latest"},
    ("POST", "/node/geofiles"): {"region": "iran"},
    ("POST", "/node/update"): {},
    ("GET", "/"): {},
}

_VERSIONS = ("latest", "v1.2.3", "26.10.10", "../../x", "1" * 300, "", "v", "1.2.3-rc.1", "%00", "26.10.10\n")


def _spoilt(rng: Random, value: Json) -> bytes:
    value = values.mutate(rng, value, rng.choice((0, 1, 1, 2, 4)))
    data = values.dumps(value)
    return values.spoil_json(rng, data) if rng.random() < 0.3 else data


def json_call(rng: Random) -> HttpCase:
    """Return a call of a method, or of the maintenance API, in JSON."""
    accept = [("Accept", rng.choice((JSON, "*/*", PROTOBUF)))]
    if rng.random() < 0.2:
        route, usual = rng.choice(sorted(_JOBS.items(), key=str))
        value: Json = dict(usual)
        if "core_version" in value and rng.random() < 0.7:
            value["core_version"] = rng.choice(_VERSIONS)
        return call(route, _spoilt(rng, value), ("Content-Type", JSON), *accept, port="api")
    row = rng.choice(CALM)
    kind = pb.Users if row.grpc_name == "SyncUsersChunked" else row.request
    value = MessageToDict(messages.some_message(rng, kind), preserving_proto_field_name=rng.random() < 0.8)
    return call(row.route, _spoilt(rng, value), ("Content-Type", JSON), *accept)


def routing_call(rng: Random) -> HttpCase:
    """Return a call about routing: rules and balancers, in protobuf or JSON."""
    rows = [row for row in METHODS if row.path.startswith("/routing/")]
    weights = [4 if row.grpc_name in ("AddRoutingRule", "TestRoute") else 1 for row in rows]
    row = rng.choices(rows, weights)[0]
    message = messages.some_message(rng, row.request)
    if isinstance(message, pb.AddRoutingRuleRequest):
        data = values.dumps(rule(rng))
        if rng.random() < 0.15:
            data = values.spoil_json(rng, data)
        message.rule = data.decode("utf-8", "replace")
        message.should_reset = rng.random() < 0.2
    if isinstance(message, pb.RemoveRoutingRuleRequest) and rng.random() < 0.7:
        message.rule_tag = f"fuzz-{rng.randrange(20)}"
    if rng.random() < 0.3:
        return call(row.route, _spoilt(rng, MessageToDict(message)), ("Content-Type", JSON), ("Accept", JSON))
    return call(row.route, message.SerializeToString(), ("Content-Type", PROTOBUF))


def config_call(rng: Random) -> HttpCase:
    """Return a start with a config, or now and then a stop or a reset in odd clothes; for the second node."""
    if rng.random() < 0.06:
        if rng.random() < 0.5:
            return call(("PUT", "/stop"), rng.choice((b"", b"\xff", rng.randbytes(20))), second=True)
        return call(("POST", "/node/hard_reset"), _spoilt(rng, {}), ("Content-Type", JSON), port="api", second=True)
    if rng.random() < 0.1:
        body = messages.spoil(rng, configs.backend(rng))
        return call(("POST", "/start"), body, ("Content-Type", PROTOBUF), second=True)
    if rng.random() < 0.1:
        value = {"config": configs.config_bytes(rng).decode(), "users": []}
        return call(("POST", "/start"), _spoilt(rng, value), ("Content-Type", JSON), second=True)
    return call(("POST", "/start"), configs.backend(rng), ("Content-Type", PROTOBUF), second=True)
