"""Who has the keys is asked of one after the other; an answer of any of them counts."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import MovedError, RedisError, ResponseError

from pgnode.bus import finding
from pgnode.bus.finding import (
    Finder,
    NotFoundError,
    UnknownMasterError,
    cluster_finder,
    is_elsewhere,
    sentinel_finder,
)
from pgnode.settings.redis_address import Host

HOSTS = [("a", 1), ("b", 2), ("::1", 3)]


async def test_the_first_good_answer_counts_and_others_are_not_waited_for() -> None:
    asked: list[Host] = []

    async def ask(host: Host) -> Host:
        asked.append(host)
        if host[0] == "a":
            await asyncio.Event().wait()
        if host[0] == "b":
            raise OSError("away")
        return "m", 7

    finder = Finder(HOSTS, ask, next_seconds=0.01)
    assert await finder.find() == ("m", 7)
    assert asked == HOSTS
    finder.ask_first(("c", 4))
    finder.ask_last()
    asked.clear()
    assert await finder.find() == ("m", 7)
    assert asked == HOSTS, "the one that was no use comes last"
    assert repr(finder) == "Finder(a:1, b:2, [::1]:3, c:4)"


async def test_nobody_knows() -> None:
    async def ask(host: Host) -> Host:
        raise RedisError(f"no {host[0]}")

    with pytest.raises(NotFoundError, match="a:1: no a; b:2: no b") as caught:
        await Finder(HOSTS[:2], ask).find()
    assert str(caught.value.__cause__) == "no b"


async def test_what_nobody_expected_is_passed_on() -> None:
    async def ask(_host: Host) -> Host:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await Finder(HOSTS, ask).find()


async def test_sentinels(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[Host, object] = {("a", 1): OSError("away"), ("b", 2): [b"m", b"7"]}
    asked: list[object] = []

    async def ask(_kind: object, arguments: object, host: Host, command: tuple[str, ...]) -> object:
        asked.append((host, command, arguments))
        answer = answers[host]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(finding, "ask", ask)
    finder = sentinel_finder(HOSTS[:2], "main", Connection, {"password": "x"})
    assert await finder.find() == ("m", 7)
    assert asked[-1] == (("b", 2), ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"), {"password": "x"})
    asked.clear()
    assert await finder.find() == ("m", 7)
    assert len(asked) == 1, "whoever answered is asked first"
    answers[("b", 2)] = None
    with pytest.raises(NotFoundError) as caught:
        await finder.find()
    assert "knows no master 'main'" in str(caught.value)
    answers[("a", 1)] = None
    with pytest.raises(NotFoundError) as caught:
        await finder.find()
    assert isinstance(caught.value.__cause__, UnknownMasterError)


async def test_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[Host, object] = {("a", 1): MovedError("5 c:9"), ("c", 9): 1}
    asked: list[Host] = []

    async def ask(_kind: object, _arguments: object, host: Host, command: tuple[str, ...]) -> object:
        asked.append(host)
        assert command == ("EXISTS", "{p}")
        answer = answers[host]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(finding, "ask", ask)
    finder = cluster_finder([("a", 1)], "{p}", Connection, {})
    assert await finder.find() == ("c", 9)
    assert await finder.find() == ("c", 9)
    assert asked == [("a", 1), ("c", 9)], "whoever has them is asked first"
    # It does not know its own name.
    answers[("c", 9)] = MovedError("5 :8")
    assert await finder.find() == ("c", 8)


@pytest.mark.parametrize("text", ["MOVED 5 h:1", "READONLY You can't write", "UNBLOCKED force unblock", "ASK 5 h:1"])
def test_refusals_of_those_that_have_the_keys_no_more(text: str) -> None:
    assert is_elsewhere(ResponseError(text))
    assert not is_elsewhere(ResponseError(f"ERR {text}"))
