"""Whether inbounds are counted is decided when a core starts, and makes no other config of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgnode.xray.config.document import BaseConfig, parse_config, render
from pgnode.xray.config.inbound_counters import InboundCounting, with_inbound_counters

UP, DOWN = "statsInboundUplink", "statsInboundDownlink"


def base(**system: bool) -> BaseConfig:
    config = {
        "policy": {"system": system} if system else {},
        "inbounds": [{"tag": "V", "port": 1, "protocol": "vless", "settings": {"decryption": "none"}}],
    }
    return parse_config(json.dumps(config), exclude_inbounds=(), api_socket="/x", assets_dir=None)


def counted(config: BaseConfig) -> tuple[Any, Any]:
    system = json.loads(render(config, {"V": ['{"id": "a"}']}))["policy"]["system"]
    assert system["statsOutboundUplink"] is True
    return system.get(UP), system.get(DOWN)


@pytest.mark.parametrize(
    ("counting", "silent", "up_only_off"),
    [
        (InboundCounting.AS_CONFIGURED, (None, None), (False, None)),
        (InboundCounting.WHERE_SILENT, (True, True), (False, True)),
        (InboundCounting.ALWAYS, (True, True), (True, True)),
        (InboundCounting.NEVER, (False, False), (False, False)),
    ],
)
def test_what_the_core_is_told(
    counting: InboundCounting, silent: tuple[Any, Any], up_only_off: tuple[Any, Any]
) -> None:
    for config, wanted in ((base(), silent), (base(**{UP: False}), up_only_off)):
        changed = with_inbound_counters(config, counting)
        assert counted(changed) == wanted
        assert changed.base_hash == config.base_hash, "no other core for it"
        assert counted(with_inbound_counters(changed, counting)) == wanted


def test_a_config_that_an_earlier_node_kept_needs_no_policy() -> None:
    config = base()
    del config.document["policy"]
    assert with_inbound_counters(config, InboundCounting.ALWAYS).document["policy"] == {
        "system": {UP: True, DOWN: True}
    }
    assert "policy" not in config.document, "the other one is as it was"
