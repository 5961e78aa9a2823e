"""Single values of proto3 JSON, read strictly."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from pgnode.errors import InvalidRequestError
from pgnode.wire import service_pb2 as pb
from pgnode.wire.json_values import GivenTwice, NoNumber, kind_of, reader_of, refuse, shown


def field(message: Any, name: str) -> FieldDescriptor:
    found: FieldDescriptor = message.DESCRIPTOR.fields_by_name[name]
    return found


STRING, BOOLEAN = field(pb.User, "email"), field(pb.StatRequest, "reset")
INT64, UINT32 = field(pb.Stat, "value"), field(pb.BackendStatsResponse, "uptime")
DOUBLE, ENUM = field(pb.SystemStatsResponse, "cpu_usage"), field(pb.StatRequest, "type")


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (STRING, "ä", "ä"),
        (BOOLEAN, True, True),
        (INT64, -5, -5),
        (INT64, "9223372036854775807", 2**63 - 1),
        (INT64, 5.0, 5),
        (UINT32, 0, 0),
        (DOUBLE, 1, 1.0),
        (DOUBLE, "-Infinity", -math.inf),
        (ENUM, "UserStat", 5),
        (ENUM, 77, 77),
    ],
)
def test_values_that_are_read(kind: FieldDescriptor, value: Any, read: Any) -> None:
    reader = reader_of(kind)
    assert reader is not None
    assert reader(value, "p") == read


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (STRING, 1, "p: a string is expected, not a number"),
        (STRING, "\ud800", "p: half of a surrogate pair is no text"),
        (BOOLEAN, "true", "p: true or false is expected, not a string"),
        (INT64, True, "p: a whole number is expected, not a boolean"),
        (INT64, "1.5", "p: a whole number is expected, not a string"),
        (INT64, "9223372036854775808", "p: out of range: allowed are -9223372036854775808 to 9223372036854775807"),
        (UINT32, -1, "p: out of range: allowed are 0 to 4294967295"),
        (DOUBLE, [], "p: a number is expected, not a list"),
        (ENUM, "Users", "p: 'Users' is no StatType: known are Outbounds, "),
        (ENUM, "\udc00\ud800", "p: '??' is no StatType: known are Outbounds, "),
    ],
)
def test_values_that_are_refused(kind: FieldDescriptor, value: Any, text: str) -> None:
    reader = reader_of(kind)
    assert reader is not None
    with pytest.raises(InvalidRequestError) as caught:
        reader(value, "p")
    assert caught.value.text.startswith(text)


def test_a_message_is_no_single_value() -> None:
    assert reader_of(field(pb.User, "proxies")) is None


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({}, "an object"),
        (GivenTwice(), "an object"),
        (None, "null"),
        (1.5, "a fraction"),
        (2.0, "a number"),
        (math.inf, "an infinite number"),
        (NoNumber(), "NaN or a number beyond 64 bits"),
    ],
)
def test_what_a_value_is(value: Any, name: str) -> None:
    assert kind_of(value) == name


@pytest.mark.parametrize("path", ["a\nb", "\x1b[2J", "\u2028", "x" * 70_000])
def test_a_path_is_shown_on_one_line_and_short(path: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        refuse(path, "no")
    assert caught.value.text.isprintable()
    assert len(caught.value.text) < 200


def test_a_long_text_is_cut_and_a_broken_one_made_whole() -> None:
    assert shown("a" * 41) == "a" * 40 + "…"
    assert shown("\ud800") == "?"
