"""Naming the part of a config that is refused, with a core that is made up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.xray.process.diagnose import MAX_CHECKS, find_refused_part


def soon(seconds: float = 60.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def config() -> dict[str, Any]:
    return {
        "log": {"loglevel": "warning"},
        "outbounds": [{"tag": "D", "protocol": "freedom", "settings": {}}],
        "inbounds": [
            {"tag": "a", "protocol": "vless", "port": 1, "settings": {"decryption": "none", "password": "s"}},
            {"tag": "b", "protocol": "trojan", "port": 2, "sniffing": {"destOverride": ["http", "tls"]}},
        ],
        "routing": {"rules": [{"outboundTag": "D", "port": "1"}]},
    }


class Without:
    """A core that refuses whatever holds a word."""

    def __init__(self, word: str) -> None:
        self._word = word
        self.calls = 0

    async def __call__(self, text: str) -> bool:
        self.calls += 1
        return self._word not in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda c: c["inbounds"][1]["sniffing"]["destOverride"].append("BAD"),
            "sniffing.destOverride[2] 'BAD' is refused",
        ),
        (
            lambda c: c["inbounds"][0]["settings"].update(password="BAD"),
            "inbound 'a' (vless): settings.password is refused",
        ),
        (
            lambda c: c["inbounds"][0]["settings"].update(flow="BAD"),
            "inbound 'a' (vless): settings.flow 'BAD' is refused",
        ),
        (lambda c: c["log"].update(loglevel="BAD"), "log: loglevel 'BAD' is refused by the core"),
        (
            lambda c: c["routing"]["rules"].append({"outboundTag": "D", "attrs": "BAD"}),
            "routing rule #2: attrs 'BAD' is",
        ),
        (
            lambda c: c["outbounds"].append({"protocol": "BAD"}),
            "outbound #2 (BAD): protocol 'BAD' is not one the core knows",
        ),
        (lambda c: c.update(more="BAD"), "more is refused by the core"),
    ],
)
async def test_the_part_is_named(change: Callable[[dict[str, Any]], object], said: str) -> None:
    document = config()
    change(document)
    check = Without("BAD")
    assert said in await find_refused_part(document, check, soon())
    assert 0 < check.calls <= MAX_CHECKS


async def test_a_config_whose_parts_are_all_taken() -> None:
    assert "takes all parts of it" in await find_refused_part(config(), Without("BAD"), soon())
    document = config()
    document["inbounds"][0]["protocol"] = "vlezz"
    assert "'vlezz'" in await find_refused_part(document, Without("BAD"), soon())


async def test_a_deadline_that_is_over() -> None:
    async def never(_text: str) -> bool:
        await asyncio.get_running_loop().create_future()
        return True

    document = config()
    assert "no time" in await find_refused_part(document, never, soon(0.02))
    document["inbounds"][0]["protocol"] = "vlezz"
    assert "'vlezz'" in await find_refused_part(document, never, soon(0.02))


async def test_when_the_checks_run_out_the_path_is_as_deep_as_they_went() -> None:
    deep: Any = "BAD"
    for _ in range(60):
        deep = {"x": deep}
    document = config()
    document["inbounds"][0]["sniffing"] = deep
    check = Without("BAD")
    text = await find_refused_part(document, check, soon())
    assert text.startswith("inbound 'a' (vless): sniffing.x.x")
    assert check.calls == MAX_CHECKS


async def test_a_core_that_changes_its_mind_is_told_by_the_part() -> None:
    calls = 0

    async def fickle(text: str) -> bool:
        nonlocal calls
        calls += 1
        return calls > 1 and "destOverride" not in json.loads(text)["inbounds"][0].get("sniffing", {})

    document = {"inbounds": [{"tag": "b", "protocol": "trojan", "port": 2, "sniffing": {"destOverride": []}}]}
    assert "is refused by the core" in await find_refused_part(document, fickle, soon())


@given(count=st.integers(1, 300), bad=st.integers(0, 299))
async def test_any_bad_rule_among_many_is_found_within_the_budget(count: int, bad: int) -> None:
    bad %= count
    rules: list[dict[str, Any]] = [{"outboundTag": "D", "port": str(number + 1)} for number in range(count)]
    rules[bad]["attrs"] = "BAD"
    check = Without("BAD")
    document = {"outbounds": [{"tag": "D", "protocol": "freedom"}], "inbounds": [], "routing": {"rules": rules}}
    text = await find_refused_part(document, check, soon())
    assert text == f"routing rule #{bad + 1}: attrs 'BAD' is refused by the core"
    assert check.calls <= MAX_CHECKS
