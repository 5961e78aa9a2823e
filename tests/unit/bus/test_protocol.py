"""The number that both sides of the bus compare, and what a supervisor says of itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.protocol import PROTOCOL, Hello, disagreement, protocol_of, worker_field


@given(st.builds(Hello))
def test_what_is_said_is_understood(hello: Hello) -> None:
    assert Hello.decode(hello.encode()) == hello
    assert hello.key not in repr(hello) or not hello.key


def test_another_version_may_say_more_or_less() -> None:
    assert Hello.decode(b'{"protocol": 7, "colour": "red"}') == Hello(7)


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b'{"protocol": "1"}', b'{"version": 1}', b'{"previous_ms": null}'])
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of json, or ours
        Hello.decode(data)


def test_who_has_to_be_updated_is_said() -> None:
    assert disagreement(Hello(version="9.9"), "0.1") == ""
    newer = disagreement(Hello(PROTOCOL + 1, "9.9"), "0.1")
    assert newer == (
        f"this worker (0.1) speaks protocol {PROTOCOL} of the bus, and its node (9.9) speaks {PROTOCOL + 1}: update the worker"
    )
    assert disagreement(Hello(version="0.1"), "9.9", protocol=PROTOCOL + 1).endswith("update the node")


@given(st.integers(min_value=1))
def test_the_field_of_a_command_tells_protocols_apart(protocol: int) -> None:
    assert protocol_of(worker_field(protocol)) == protocol


@pytest.mark.parametrize("name", [b"", b"x", b"wx", b"a1b2c31", b"worker"])
def test_ids_of_commands_are_none(name: bytes) -> None:
    assert protocol_of(name) is None


def test_it_is_json() -> None:
    assert json.loads(Hello(version="1").encode())["protocol"] == PROTOCOL
