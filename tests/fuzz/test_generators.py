"""What the fuzzers send: inputs can be made again, are saved whole, and are of the kinds that they should be."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import pytest

from pgnode.wire import service_pb2 as pb
from tests.fuzz import configs, http2, http_requests, json_calls, messages, rules, values
from tests.fuzz.cases import GrpcCase, HttpCase, from_json, to_json
from tests.fuzz.doors import DOORS, make_case


@pytest.mark.parametrize("door", DOORS)
def test_an_input_is_made_again_from_seed_and_number(door: str) -> None:
    first = [make_case(door, 5, number) for number in range(30)]
    assert [make_case(door, 5, number) for number in range(30)] == first
    assert [make_case(door, 6, number) for number in range(30)] != first


@pytest.mark.parametrize("door", DOORS)
def test_an_input_is_saved_whole(door: str) -> None:
    for number in range(30):
        case = make_case(door, 1, number)
        assert from_json(to_json(case)) == case


@pytest.mark.parametrize("door", DOORS)
def test_calls_that_end_or_replace_a_core_go_to_the_second_node(door: str) -> None:
    for number in range(300):
        case = make_case(door, 2, number)
        if isinstance(case, HttpCase) and case.route in {
            ("POST", "/start"),
            ("PUT", "/stop"),
            ("POST", "/node/hard_reset"),
        }:
            assert case.second
        if isinstance(case, HttpCase) and case.route is None:
            sent = b"".join(case.parts)
            assert not any(path in sent for path in (b"/stop", b"/start", b"/logs", b"/node/"))


def test_odd_texts_are_none_that_logs_are_searched_for() -> None:
    assert [text for text in values.TEXTS if "exception" in text.lower() or "traceback" in text.lower()] == []


def test_some_mutations_leave_json_and_some_do_not() -> None:
    rng = Random(3)
    kinds: Counter[bool] = Counter()
    for _ in range(200):
        data = values.spoil_json(rng, values.dumps(values.mutate(rng, configs.base_config(), 2)))
        try:
            json.loads(data)
            kinds[True] += 1
        except (ValueError, RecursionError):
            kinds[False] += 1
    assert min(kinds[True], kinds[False]) > 20


def test_changes_do_not_touch_what_is_changed() -> None:
    before = configs.base_config()
    config = configs.base_config()
    for number in range(50):
        values.mutate(Random(number), config, 3)
    assert config == before


def test_deep_nesting_is_written() -> None:
    assert values.dumps(values.nested(300, as_list=True)) == b"[" * 300 + b"null" + b"]" * 300
    assert values.dumps(values.nested(100_000, as_list=False)).startswith(b"[[[")


def test_messages_are_whole_or_spoilt() -> None:
    rng = Random(4)
    kinds: Counter[bool] = Counter()
    for _ in range(200):
        try:
            pb.Users.FromString(messages.some_bytes(rng, pb.Users))
            kinds[True] += 1
        except Exception:
            kinds[False] += 1
    assert min(kinds[True], kinds[False]) > 20
    assert len({messages.some_frames(rng) for _ in range(50)}) > 20


def test_rules_are_often_good() -> None:
    rng = Random(5)
    made = [rules.rule(rng) for _ in range(100)]
    assert sum(isinstance(rule, dict) and "outboundTag" in rule for rule in made) > 20


def test_starts_hold_configs_of_every_sample() -> None:
    assert configs.samples() == ["balancer", "panel-default", "wide"]
    rng = Random(6)
    texts = [pb.Backend.FromString(configs.backend(rng)).config for _ in range(60)]
    assert any("VLESS TCP REALITY" in text for text in texts)


def test_a_well_formed_call_says_what_it_is() -> None:
    case = http_requests.call(("PUT", "/user/sync"), b"abc", ("Content-Type", "x"))
    assert case.route == ("PUT", "/user/sync")
    assert case.parts[0].startswith(b"PUT /user/sync HTTP/1.1\r\n")
    assert case.parts[0].endswith(b"Content-Length: 3\r\nContent-Type: x\r\n\r\nabc")
    assert json_calls.config_call(Random(1)).second


def test_frames_are_read_as_they_were_written() -> None:
    frames = http2.call_frames("GetStats", [b"a" * 40_000])
    assert list(http2.decode(b"".join(frame.encode() for frame in frames))) == frames
    assert list(http2.decode(frames[0].encode()[:-1])) == []
    assert frames[0].encode(length=7)[:3] == b"\0\0\7"
    assert isinstance(http2.whole_call(Random(1)), GrpcCase)
