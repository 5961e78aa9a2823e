"""What a scratch core tells about parts is what a core that was started with them keeps, and a running core takes it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from pgnode.errors import StartFailedError
from pgnode.testing.configs import make_config, make_inbound, plain_inbounds
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.client.inbounds import with_users
from pgnode.xray.config.diff import ConfigDiff
from pgnode.xray.config.document import BaseConfig, parse_config, render
from pgnode.xray.process.base import Core
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.scratch import encode_parts
from pgnode.xray.proto import core_pb2
from tests.integration.xray.conftest import DEADLINE_SECONDS, StartCore

SAMPLES = Path(__file__).parents[2] / "samples"


def base_of(config: dict[str, Any], run_dir: Path) -> BaseConfig:
    return parse_config(json.dumps(config), exclude_inbounds=(), api_socket=str(run_dir / "core.sock"), assets_dir=None)


def everything(base: BaseConfig) -> ConfigDiff:
    return ConfigDiff(
        add_inbounds=tuple(spec.tag for spec in base.inbounds),
        add_outbounds=tuple(item["tag"] for item in base.document["outbounds"]),
    )


def without_users(inbounds: dict[str, core_pb2.InboundHandlerConfig]) -> dict[str, bytes]:
    """Encoded, with empty lists of users where there is one."""
    found = {}
    for tag, inbound in inbounds.items():
        bare = inbound
        with contextlib.suppress(CoreApiError):  # it has no list of users
            bare, _ = with_users(inbound, [])
        found[tag] = bare.SerializeToString(deterministic=True)
    return found


@pytest.mark.parametrize("sample", ["wide", "panel-default", "plain"])
async def test_parts_are_encoded_as_a_started_core_keeps_them(
    sample: str, run_dir: Path, start_core: StartCore
) -> None:
    if sample == "plain":
        config = make_config(plain_inbounds())
        for item, listen in zip(config["inbounds"], ["127.0.0.1", "::1", "localhost", "", "0.0.0.0"], strict=True):
            item["listen"] = listen
        config["inbounds"].append({**make_inbound("unix", "vless"), "listen": str(run_dir / "in.sock")})
    else:
        config = json.loads((SAMPLES / f"{sample}.json").read_text())
    base = base_of(config, run_dir)
    running = await start_core(EmbeddedCore(), render(base, {}), run_dir)
    encoded = await encode_parts(
        EmbeddedCore(), base, everything(base), run_dir / "core.scratch.sock", DEADLINE_SECONDS
    )
    async with CoreApi(running.socket_path) as api:
        inbounds = {item.tag: item for item in await api.inbounds.list_inbounds(DEADLINE_SECONDS)}
        outbounds = {item.tag: item for item in await api.inbounds.list_outbounds(DEADLINE_SECONDS)}
    expected = without_users({tag: item for tag, item in inbounds.items() if tag in encoded.inbounds})
    assert len(expected) == len(base.inbounds)
    assert without_users(encoded.inbounds) == expected
    assert encoded.outbounds == {tag: item for tag, item in outbounds.items() if tag}


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def test_a_scratch_core_leaves_nothing(core: Core, run_dir: Path) -> None:
    base = base_of(make_config([make_inbound("VLESS", "vless")]), run_dir)
    before = children()
    encoded = await encode_parts(core, base, everything(base), run_dir / "core.scratch.sock", DEADLINE_SECONDS)
    assert set(encoded.inbounds) == {"VLESS"}
    assert set(encoded.outbounds) == {"DIRECT", "BLOCK"}
    assert not os.listdir(run_dir)
    assert children() <= before


async def test_the_reason_when_it_does_not_come_up(core: Core, run_dir: Path) -> None:
    config = make_config([make_inbound("bad", "vless")])
    config["inbounds"][0]["settings"]["decryption"] = "unheard-of"
    base = base_of(config, run_dir)
    with pytest.raises(StartFailedError, match="scratch core did not come up"):
        await encode_parts(core, base, everything(base), run_dir / "core.scratch.sock", DEADLINE_SECONDS)
    assert not os.listdir(run_dir)
