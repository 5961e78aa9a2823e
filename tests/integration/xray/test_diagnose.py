"""Naming the part of a config that the core refuses, with the real core and with a made-up one."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.xray.config.document import parse_config
from pgnode.xray.process.diagnose import MAX_CHECKS, find_refused_part
from pgnode.xray.process.unbindable import NO_DEVICE, unbindable

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
REFUSED = 23


class CoreCheck:
    """Asks the embedded core whether it takes a config."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, text: str) -> bool:
        self.calls += 1
        core = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", "import sys, xray; xray.startFromJSON(sys.stdin.read())"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await asyncio.wait_for(core.communicate(text.encode()), 60)
        except TimeoutError:
            core.kill()
            await core.wait()
        assert core.returncode in {REFUSED, 255}, "the core served a config that was made not to be served"
        return core.returncode != REFUSED


def soon(seconds: float = 60) -> float:
    return asyncio.get_running_loop().time() + seconds


def wide() -> dict[str, Any]:
    text = (SAMPLES / "wide.json").read_text()
    return parse_config(
        text, exclude_inbounds=["Static clients"], api_socket="/run/x/api.sock", assets_dir=None
    ).document


def damage(document: dict[str, Any], path: tuple[str | int, ...], value: object) -> None:
    target: Any = document
    for step in path[:-1]:
        target = target.setdefault(step, {}) if isinstance(target, dict) else target[step]
    if isinstance(target, list):
        target.insert(int(path[-1]), value)
    else:
        target[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("inbounds", 1, "protocol"), "vlezz", "protocol 'vlezz' is not one the core knows"),
        (
            ("inbounds", 2, "streamSettings", "network"),
            "quic",
            "inbound 'VLESS WS' (vless): transport 'quic' is not one",
        ),
        (("inbounds", 2, "port"), "http", "inbound 'VLESS WS' (vless): port 'http' is not valid"),
        (("inbounds", 2, "listen"), "node.example", "listen 'node.example' is no IP address"),
        (
            ("inbounds", 1, "streamSettings", "tlsSettings", "certificates", 0),
            {"certificateFile": "/nowhere/cert.pem", "keyFile": "/nowhere/key.pem"},
            "certificateFile '/nowhere/cert.pem' does not exist",
        ),
        (
            ("inbounds", 1, "streamSettings", "tlsSettings", "alpn"),
            5,
            "inbound 'VLESS TCP TLS fallbacks' (vless): streamSettings.tlsSettings.alpn is refused",
        ),
        (
            ("inbounds", 0, "streamSettings", "realitySettings", "privateKey"),
            "short",
            "VLESS TCP REALITY' (vless): streamSet",
        ),
        (("inbounds", 3, "settings", "decryption"), "some", "inbound 'VLESS XHTTP' (vless): settings is refused"),
        (
            ("inbounds", 0, "sniffing", "destOverride", 1),
            "smtp",
            "sniffing.destOverride[1] 'smtp' is refused by the core",
        ),
        (("inbounds", 11, "settings", "clients", 0), {"id": "x" * 31}, "settings.clients[0]"),
        (("outbounds", 1, "protocol"), "blackhoel", "outbound 'BLOCK' (blackhoel): protocol 'blackhoel' is not one"),
        (("outbounds", 2), {"tag": "DIRECT", "protocol": "freedom"}, "two outbounds have the tag 'DIRECT'"),
        (
            ("outbounds", 0, "settings", "domainStrategy"),
            5,
            "outbound 'DIRECT' (freedom): settings.domainStrategy 5 is refused",
        ),
        (("routing", "rules", 3), {"port": "1"}, "routing rule #4 has neither outboundTag nor balancerTag"),
        (
            ("routing", "rules", 2, "domain", 1),
            "regexp:x{1001}",
            "routing rule 'ads': domain[1] 'regexp:x{1001}' is refused by the core",
        ),
        (
            ("routing", "rules", 4),
            {"outboundTag": "B", "port": "1", "ruleTag": "ads"},
            "two routing rules have the ruleTag 'ads'",
        ),
        (("dns", "servers", 1), 5, "dns: servers[1] 5 is refused by the core"),
        (("policy", "levels", "0", "handshake"), "x", "policy: levels.0.handshake 'x' is refused by the core"),
        (("log", "loglevel"), 1, "log: loglevel 1 is refused by the core"),
    ],
)
async def test_the_real_core_and_one_fault(path: tuple[str | int, ...], value: object, expected: str) -> None:
    document = wide()
    damage(document, path, value)
    check = CoreCheck()
    text = await find_refused_part(document, check, soon())
    assert expected in text[:128]
    assert 0 < check.calls <= MAX_CHECKS


async def test_the_core_takes_every_part_of_a_good_config() -> None:
    assert "takes all parts of it" in await find_refused_part(wide(), CoreCheck(), soon())


async def test_a_deadline_that_is_over() -> None:
    async def never(_text: str) -> bool:
        await asyncio.get_running_loop().create_future()
        return True

    document = wide()
    assert "no time" in await find_refused_part(document, never, soon(0.05))
    document["inbounds"][3]["protocol"] = "vlezz"
    assert "'vlezz'" in await find_refused_part(document, never, soon(0.05))


async def test_secrets_are_not_shown() -> None:
    document = wide()
    document["inbounds"][0]["settings"]["password"] = "hidden"

    async def without_password(text: str) -> bool:
        return "hidden" not in text

    text = await find_refused_part(document, without_password, soon())
    assert text == "inbound 'VLESS TCP REALITY' (vless): settings.password is refused by the core"


def test_nothing_that_could_serve_is_put_to_the_core() -> None:
    document = wide() | {"metrics": {"tag": "m", "listen": "127.0.0.1:1"}}
    document["inbounds"].append({"tag": "t", "protocol": "tun"})
    before = json.dumps(document)
    changed = unbindable(document)
    assert "api" not in changed
    assert changed["metrics"] == {"tag": "m"}
    devices = [inbound for inbound in changed["inbounds"] if inbound["protocol"] == "tun"]
    others = [inbound for inbound in changed["inbounds"] if inbound["protocol"] != "tun"]
    assert {inbound["listen"] for inbound in others} == {"192.0.2.1", "/dev/null/x"}
    assert [device["settings"] for device in devices] == [{"name": NO_DEVICE}], "no device is set up"
    assert json.dumps(document) == before


@given(count=st.integers(1, 300), bad=st.integers(0, 299))
async def test_any_bad_rule_among_many_is_found_within_the_budget(count: int, bad: int) -> None:
    bad %= count
    rules: list[dict[str, Any]] = [{"outboundTag": "D", "port": str(number + 1)} for number in range(count)]
    rules[bad]["attrs"] = "BAD"
    calls = 0

    async def check(text: str) -> bool:
        nonlocal calls
        calls += 1
        return "BAD" not in text

    document = {"outbounds": [{"tag": "D", "protocol": "freedom"}], "inbounds": [], "routing": {"rules": rules}}
    text = await find_refused_part(document, check, soon())
    assert text == f"routing rule #{bad + 1}: attrs 'BAD' is refused by the core"
    assert calls <= 20
