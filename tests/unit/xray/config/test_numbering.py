"""Parts are counted as the panel counts them."""

from __future__ import annotations

import json

from pgnode.xray.config.numbering import list_at, number_parts
from tests.unit.xray.config.configs import config, parse, vless


def test_what_the_node_adds_and_drops_does_not_count() -> None:
    document = config(
        inbounds=[{"tag": "API_INBOUND", "protocol": "tunnel", "port": 1}, vless("a"), vless("", port=7)],
        outbounds=[{"tag": "D", "protocol": "freedom"}, {"tag": "B", "protocol": "blackhole"}],
        routing={"rules": [{"inboundTag": ["API_INBOUND"], "outboundTag": "api"}, {"port": "1", "outboundTag": "D"}]},
    )
    base = parse(document)
    found = base.numbers.of(base.document)
    assert found["inbounds"] == (2, 3)
    assert found["outbounds"] == (1, 2)
    assert found["routing.rules"] == (0, 2), "the guard is the node's own"
    assert base.inbounds[1].title == "inbound #3"


def test_lists_of_others_are_counted_as_they_stand() -> None:
    numbers = number_parts(json.loads('{"routing": {"rules": [{}, {}]}}'))
    assert numbers.of({"routing": {"rules": [{}, {}, {}]}})["routing.rules"] == (1, 2, 3)


def test_lists_that_are_none() -> None:
    assert list_at({"routing": 5}, "routing.rules") == list_at({}, "inbounds") == list_at({"inbounds": {}}, "inbounds")
