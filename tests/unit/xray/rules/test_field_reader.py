"""Fields of a JSON object are read, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pgnode.errors import InvalidRequestError
from pgnode.xray.rules.field_reader import FieldReader, folded

Read = Callable[[FieldReader], object]


def reader(value: object, *, strict: bool = False) -> FieldReader:
    return FieldReader({"x": value}, "rule", strict)


def ports(value: object, *, strict: bool = False, name: str = "x") -> list[tuple[int, int]] | None:
    found = FieldReader({name: value}, "rule", strict).ports(name)
    return None if found is None else [(item.From, item.To) for item in found.range]


@pytest.mark.parametrize(
    ("read", "missing"),
    [
        (lambda r: r.text("x"), ""),
        (lambda r: r.texts("x"), []),
        (lambda r: r.items("x", dict, "objects"), []),
        (lambda r: r.section("x"), {}),
        (lambda r: r.text_map("x"), {}),
        (lambda r: r.number("x"), 0),
        (lambda r: r.ports("x"), None),
    ],
)
def test_null_is_not_there(read: Read, missing: object) -> None:
    assert read(reader(None)) == missing
    assert read(FieldReader({}, "rule", strict=True)) == missing


@pytest.mark.parametrize(
    ("read", "value", "found"),
    [
        (lambda r: r.text("x"), "a", "a"),
        (lambda r: r.texts("x"), "a,b", ["a", "b"]),
        (lambda r: r.texts("x"), ["a", " b"], ["a", " b"]),
        (lambda r: r.items("x", str, "durations"), ["1s"], ["1s"]),
        (lambda r: r.section("x"), {"a": 1}, {"a": 1}),
        (lambda r: r.text_map("x"), {"a": "b"}, {"a": "b"}),
        (lambda r: r.number("x"), 1.5, 1.5),
    ],
)
def test_what_is_there(read: Read, value: object, found: object) -> None:
    assert read(reader(value)) == found


@pytest.mark.parametrize(
    ("read", "value", "cause"),
    [
        (lambda r: r.text("x"), 5, "rule: x must be a string, not a number"),
        (lambda r: r.text("x"), "\ud800", "half a surrogate pair"),
        (lambda r: r.texts("x"), 5, "x must be a list of strings or a string, not a number"),
        (lambda r: r.texts("x"), [5], "x must be a list of strings, not a number"),
        (lambda r: r.items("x", dict, "objects"), [5], "x must be a list of objects, not a list"),
        (lambda r: r.section("x"), [], "x must be an object, not a list"),
        (lambda r: r.text_map("x"), {"a": 5}, "x.a must be a string, not a number"),
        (lambda r: r.number("x"), True, "x must be a number, not a boolean"),
        (lambda r: r.ports("x"), [], "x must be a number or a string such as"),
        (lambda r: r.ports("x"), "a", "x: 'a' is no port"),
        (lambda r: r.ports("x"), "70000", "'70000' is no port"),
    ],
)
def test_what_is_wrong_is_named(read: Read, value: object, cause: str) -> None:
    with pytest.raises(InvalidRequestError, match=cause):
        read(reader(value))


@pytest.mark.parametrize(
    ("read", "value", "cause"),
    [
        (lambda r: r.texts("x"), ["a", " "], "has an empty entry"),
        (lambda r: r.texts("x"), [], "is empty: leave it out"),
        (lambda r: r.ports("x"), "", "is empty: leave it out or name a port"),
        (lambda r: r.ports("x"), "9-1", "runs backwards"),
        (lambda r: r.ports("x"), 0, "'0' is no port"),
    ],
)
def test_what_can_never_match_is_refused_where_that_is_asked_for(read: Read, value: object, cause: str) -> None:
    read(reader(value))
    with pytest.raises(InvalidRequestError, match=cause):
        read(reader(value, strict=True))


def test_a_name_has_no_control_characters_where_that_is_asked_for() -> None:
    assert reader("a\nb").name("x") == "a\nb"
    assert reader("a b", strict=True).name("x") == "a b"
    with pytest.raises(InvalidRequestError, match=r"x 'a\\nb' holds the control character '\\n'"):
        reader("a\nb", strict=True).name("x")


def test_ports() -> None:
    assert ports(80) == [(80, 80)]
    assert ports("80, 1000-2000") == [(80, 80), (1000, 2000)]
    assert ports(0) == []
    assert ports("0", strict=True, name="vlessRoute") == [(0, 0)]
    assert reader(["a ", "b"], strict=True).texts("x") == ["a", "b"]


def test_spelling() -> None:
    part: dict[str, Any] = {"Tag": 1, "other": 2, "TAG": 3}
    assert folded(part, "tag") == {"tag": 3, "other": 2}
