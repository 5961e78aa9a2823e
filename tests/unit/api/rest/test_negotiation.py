"""Which form the two sides of a call have."""

from __future__ import annotations

import pytest

from pgnode.api.rest.negotiation import accepts_json, is_json, is_json_body, prefers_events, prefers_json
from pgnode.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("content_type", "json_only", "expected"),
    [
        (None, False, False),
        (b"", False, False),
        (b"application/x-protobuf", False, False),
        (b"Application/X-Protobuf; charset=utf-8", False, False),
        (b"application/json", False, True),
        (b"APPLICATION/JSON ; charset=utf-8", False, True),
        (None, True, True),
        (b"", True, True),
        (b"application/json", True, True),
    ],
)
def test_the_form_of_a_body(content_type: bytes | None, json_only: bool, expected: bool) -> None:
    assert is_json_body(content_type, json_only=json_only) is expected


@pytest.mark.parametrize(
    ("content_type", "json_only", "allowed"),
    [
        (b"text/json", False, "send application/x-protobuf or application/json"),
        (b"application/x-protobuf", True, "send application/json"),
    ],
)
def test_other_forms_are_refused_with_those_that_are_allowed(
    content_type: bytes, json_only: bool, allowed: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"wrong Content-Type '{content_type.decode()}': {allowed}"):
        is_json_body(content_type, json_only=json_only)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (b"application/json", True),
        (b"application/x-protobuf;q=0.4, application/json;q=0.5", True),
        (b"application/json, application/x-protobuf", False),
        (b"application/json;q=0", False),
        (b"application/json; a=b; q=x", True),
        (b"*/*", False),
    ],
)
def test_who_asks_for_json(accept: bytes, *, wanted: bool) -> None:
    assert prefers_json(accept) is wanted


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [("text/html, Text/Event-Stream;q=0.9", True), ("*/*", False), ("text/*", False), ("", False)],
)
def test_who_asks_for_events(accept: str, *, wanted: bool) -> None:
    assert prefers_events(accept) is wanted


@pytest.mark.parametrize(
    ("accept", "named"),
    [
        (None, False),
        (b"*/*", False),
        (b"application/x-protobuf, application/json;q=0.1", True),
        (b"application/json;q=0", False),
    ],
)
def test_who_takes_json_at_all(accept: bytes | None, *, named: bool) -> None:
    assert accepts_json(accept) is named


def test_a_type_that_names_json() -> None:
    assert is_json(b"Application/JSON; charset=utf-8")
    assert not is_json(b"application/x-protobuf")
    assert not is_json(None)
