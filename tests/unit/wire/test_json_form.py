"""Messages as JSON, both ways."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from pgnode.errors import InvalidRequestError
from pgnode.wire import service_pb2 as pb
from pgnode.wire.json_form import INDENT_BYTES, line_of, message_of, text_of

MESSAGES: list[type[Message]] = [getattr(pb, name) for name in pb.DESCRIPTOR.message_types_by_name]
RANGES = {
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1),
}


def value_of(field: Any) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type._concrete_class)
    if field.cpp_type in RANGES:
        return st.integers(*RANGES[field.cpp_type])
    return {
        FieldDescriptor.CPPTYPE_STRING: st.text(),
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False),
    }[field.cpp_type]


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Messages of a kind, any of their fields set."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in kind.DESCRIPTOR.fields:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            fields[field.name] = st.dictionaries(st.text(), value_of(entry.fields_by_name["value"]), max_size=3)
        else:
            one = value_of(field)
            fields[field.name] = st.lists(one, max_size=3) if field.is_repeated else one
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: kind(**values))


@given(st.sampled_from(MESSAGES).flatmap(messages))
def test_what_goes_out_comes_back(message: Message) -> None:
    assert message_of(type(message), text_of(message)) == message
    assert message_of(type(message), line_of(message)) == message
    # The library's own spelling, too: camelCase, without what has its default.
    assert message_of(type(message), json_format.MessageToJson(message).encode()) == message


def taken(kind: type[Message], text: bytes) -> Message | None:
    """The message, None where it is refused in good order."""
    try:
        return message_of(kind, text)
    except InvalidRequestError:
        return None


@given(st.sampled_from(MESSAGES), st.binary() | st.text().map(str.encode))
def test_bytes_of_any_kind_are_a_message_or_refused(kind: type[Message], text: bytes) -> None:
    assert isinstance(taken(kind, text), kind | None)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["users", "email", "type", "name"]), inner),
    max_leaves=10,
)


@given(st.sampled_from(MESSAGES), _json)
def test_json_of_any_shape_is_a_message_or_refused(kind: type[Message], value: Any) -> None:
    text = json.dumps(value).encode()
    found = taken(kind, text)
    # What is taken, the library takes as well, and in the same way.
    assert found is None or json_format.Parse(text, kind()) == found


def test_the_form_of_answers() -> None:
    assert text_of(pb.Empty()) == b"{}\n"
    text = text_of(pb.StatResponse(stats=[pb.Stat(name="ö", value=2**40)])).decode()
    assert '"name": "ö"' in text
    assert json.loads(text) == {"stats": [{"name": "ö", "type": "", "link": "", "value": str(2**40)}]}
    assert set(json.loads(text_of(pb.BaseInfoResponse()))) == set(pb.BaseInfoResponse.DESCRIPTOR.fields_by_name)
    assert line_of(pb.Log(detail="a\nb")) == b'{"detail": "a\\nb"}\n'


def test_large_answers_are_on_one_line() -> None:
    small, large = pb.Log(detail="x" * 10), pb.Log(detail="x" * (INDENT_BYTES + 1))
    assert [text_of(message).count(b"\n") for message in (small, large)] == [3, 1]


def test_nothing_is_the_empty_message_and_null_is_a_missing_field() -> None:
    assert message_of(pb.Users, b"") == pb.Users()
    assert message_of(pb.StatRequest, b'{"name": null, "type": null}') == pb.StatRequest()
    assert message_of(pb.Users, b'{"users": null}') == pb.Users()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"keep_alive": 12}', 12),
        ('{"keepAlive": "12"}', 12),
        ('{"keep_alive": 1.0}', 1),
        ('{"keep_alive": 1e3}', 1000),
        ('{"keep_alive": "18446744073709551615"}', 2**64 - 1),
    ],
)
def test_whole_numbers_in_all_their_forms(text: str, value: int) -> None:
    assert message_of(pb.Backend, text.encode()).keep_alive == value


def test_enums_by_name_and_by_number() -> None:
    assert message_of(pb.StatRequest, b'{"type": "UserStat"}').type == pb.StatType.UserStat
    assert message_of(pb.StatRequest, b'{"type": 5}').type == pb.StatType.UserStat


@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        (
            pb.Users,
            '{"users": [{}, {"emial": ""}]}',
            "users[1].emial: unknown field: User has email, proxies, inbounds",
        ),
        (
            pb.Users,
            '{"users": [{"proxies": {"vless": {"id": 5}}}]}',
            "users[0].proxies.vless.id: a string is expected, not a number",
        ),
        (pb.Users, '{"users": [{"inbounds": ["a", 1]}]}', "users[0].inbounds[1]: a string is expected, not a number"),
        (pb.Users, '{"users": [null]}', "users[0]: an object is expected, not null"),
        (pb.Users, '{"users": {}}', "users: a list is expected, not an object"),
        (pb.Users, '{"users": [{"proxies": []}]}', "users[0].proxies: an object is expected, not a list"),
        (pb.Users, "[]", "Users: an object is expected, not a list"),
        (pb.Users, "null", "Users: an object is expected, not null"),
        (pb.Empty, '{"a": 1}', "a: unknown field: Empty has none"),
        (pb.Users, '{"users": [], "users": []}', "Users: 'users' is given twice"),
        (pb.Users, '{"users": [{"email": "a", "email": "b"}]}', "users[0]: 'email' is given twice"),
        (pb.Backend, '{"keepAlive": 1, "keep_alive": 1}', "keep_alive: given twice, as keep_alive and as keepAlive"),
        (pb.Backend, '{"keep_alive": -1}', "keep_alive: out of range: allowed are 0 to 18446744073709551615"),
        (pb.Backend, '{"keep_alive": 1.5}', "keep_alive: a whole number is expected, not a fraction"),
        (pb.Backend, '{"keep_alive": 1e400}', "keep_alive: a whole number is expected, not an infinite number"),
        (pb.Backend, '{"keep_alive": "x"}', "keep_alive: a whole number is expected, not a string"),
        (pb.Backend, '{"keep_alive": true}', "keep_alive: a whole number is expected, not a boolean"),
        (
            pb.Backend,
            '{"keep_alive": ' + "9" * 100_000 + "}",
            "keep_alive: a whole number is expected, not NaN or a number beyond 64 bits",
        ),
        (
            pb.Backend,
            '{"keep_alive": NaN}',
            "keep_alive: a whole number is expected, not NaN or a number beyond 64 bits",
        ),
        (pb.StatRequest, '{"reset": 1}', "reset: true or false is expected, not a number"),
        (
            pb.StatRequest,
            '{"type": "Users"}',
            "type: 'Users' is no StatType: known are Outbounds, Outbound, Inbounds, Inbound, UsersStat, UserStat",
        ),
        (pb.StatRequest, '{"name": "\\ud800"}', "name: half of a surrogate pair is no text"),
        (pb.TestRouteRequest, '{"attributes": {"a": 1}}', "attributes['a']: a string is expected, not a number"),
        (pb.TestRouteRequest, '{"attributes": []}', "attributes: an object is expected, not a list"),
        (pb.SystemStatsResponse, '{"cpu_usage": "1"}', "cpu_usage: a number is expected, not a string"),
        (pb.Users, '{"users": ' + "[" * 100_000, "malformed JSON: nested too deeply"),
        (pb.Users, '{"users": [}', "malformed JSON: Expecting value: line 1 column 12 (char 11)"),
        (pb.Users, " ", "malformed JSON: Expecting value: line 1 column 2 (char 1)"),
    ],
)
def test_what_is_wrong_and_where(kind: type[Message], text: str, error: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        message_of(kind, text.encode())
    assert refusal.value.text == error
    assert len(error) <= 128


def test_bytes_that_are_no_utf_8() -> None:
    with pytest.raises(InvalidRequestError, match="malformed JSON: byte 10 is no UTF-8"):
        message_of(pb.Users, b'{"users": \xff')


def test_a_caller_s_own_text_is_cut_and_secrets_are_not_repeated() -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        message_of(pb.StatRequest, json.dumps({"type": "x" * 1000}).encode())
    assert len(refusal.value.text) < 200
    with pytest.raises(InvalidRequestError) as refusal:
        message_of(pb.Users, b'{"users": "secret"}')
    assert "secret" not in refusal.value.text
