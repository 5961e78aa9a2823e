"""A config is accepted, or refused with the part and the reason, whatever the core tells."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from pgnode.errors import StartFailedError
from pgnode.supervisor.core.config_check import check_config
from pgnode.testing.configs import make_config, make_inbound
from pgnode.xray.config.document import BaseConfig, parse_config
from pgnode.xray.process.trial import EXIT_CONFIG_REFUSED

Verdict = tuple[bool, int, str]
FINE: Verdict = (True, 0, "")


class Judge:
    """A core that refuses whatever holds a word."""

    def __init__(
        self, word: str, code: int = EXIT_CONFIG_REFUSED, output: str = "", *, only_read: bool = False
    ) -> None:
        self.word, self.code, self.output, self.only_read = word, code, output, only_read
        self.read = 0

    async def rehearse(self, config_json: str, _seconds: float) -> Verdict:
        if self.word in config_json and not self.only_read:
            return False, self.code, self.output
        return FINE

    async def check_exit_code(self, config_json: str, _seconds: float) -> tuple[int, str]:
        self.read += 1
        return (self.code, self.output) if self.word in config_json else (0, "")


def base(**sections: Any) -> BaseConfig:
    config = json.dumps({**make_config([make_inbound("A", "vless"), make_inbound("BAD", "vless")]), **sections})
    return parse_config(config, exclude_inbounds=(), api_socket="/run/core.sock", assets_dir=None)


async def check(judge: Judge, **sections: Any) -> None:
    await check_config(cast(Any, judge), base(**sections), 30.0)


async def test_a_config_that_comes_up_is_accepted() -> None:
    judge = Judge("nothing of it")
    await check(judge)
    assert judge.read == 0


async def test_the_reason_of_the_core_is_passed_on() -> None:
    output = "Failed to start: main: failed to load config files: [stdin:] > infra/conf: unknown cipher"
    with pytest.raises(StartFailedError, match="unknown cipher"):
        await check(Judge("BAD", output=output))


async def test_without_a_reason_the_part_is_looked_for() -> None:
    judge = Judge('"BAD"')
    with pytest.raises(StartFailedError, match=r"^inbound 'BAD'"):
        await check(judge)
    assert judge.read > 0, "its parts are only read"


async def test_so_is_the_part_that_ends_a_start() -> None:
    with pytest.raises(StartFailedError, match=r"^inbound 'BAD'"):
        await check(Judge('"BAD"', code=2))


async def test_outbounds_that_nobody_starts_are_read() -> None:
    dialling = {"tag": "out", "protocol": "vless", "settings": {"reverse": {"tag": "WRONG"}}}
    with pytest.raises(StartFailedError, match="out"):
        await check(Judge("WRONG", only_read=True), outbounds=[{"protocol": "freedom"}, dialling])


@pytest.mark.parametrize("code", [EXIT_CONFIG_REFUSED, -6])
async def test_one_over_which_a_core_crashes_while_it_reads_is_refused(code: int) -> None:
    """Go ends over some values that nobody thought of, be they in a part that is only read."""
    device = {"tag": "t", "protocol": "tun", "settings": {"x": "WRONG"}}
    with pytest.raises(StartFailedError, match=r"^inbound 't'"):
        await check(Judge("WRONG", code=code, only_read=True), inbounds=[make_inbound("A", "vless"), device])
