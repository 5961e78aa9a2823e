"""Single values of proto3 JSON: strings, numbers, booleans and enums, each read strictly. Pure.

Whatever is refused is named by its path and by what it is, never by its value: that may be a secret in the wrong place.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NoReturn

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from pgnode.errors import InvalidRequestError
from pgnode.wire.texts import path_shown

#: Longest part of a caller's own text that an error repeats.
_SHOWN_CHARACTERS = 40

#: No integer of 64 bits has more digits; numbers of millions of digits take minutes to read.
DIGITS_MAX = 20

_WHOLE = re.compile(f"-?[0-9]{{1,{DIGITS_MAX}}}")

#: Makes a field's value of a JSON value; the string is the path of the latter.
ValueReader = Callable[[Any, str], Any]


class GivenTwice(dict[str, Any]):
    """An object in which ``name`` came twice."""

    name = ""


class NoNumber:
    """A number that cannot be read, or that JSON does not have."""


def reader_of(field: FieldDescriptor) -> ValueReader | None:
    """Return what reads a value of ``field``; None where the field is a message."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return None
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        return functools.partial(_enum, field.enum_type)
    if kind in _INTEGERS:
        return functools.partial(_whole, *_INTEGERS[kind])
    return _SCALARS[kind]


def read_string(value: Any, path: str) -> str:
    """Return a string; refuse anything else, and text that cannot be UTF-8."""
    if not isinstance(value, str):
        refuse(path, f"a string is expected, not {kind_of(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            refuse(path, "half of a surrogate pair is no text")
    return value


def _boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        refuse(path, f"true or false is expected, not {kind_of(value)}")
    return value


def _number(value: Any, path: str) -> float:
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        refuse(path, f"a number is expected, not {kind_of(value)}")
    return float(value)


def _whole(low: int, high: int, value: Any, path: str) -> int:
    number = value
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _WHOLE.fullmatch(value)):
        number = int(value)
    if not isinstance(number, int) or isinstance(number, bool):
        refuse(path, f"a whole number is expected, not {kind_of(value)}")
    if not low <= number <= high:
        refuse(path, f"out of range: allowed are {low} to {high}")
    return number


def _enum(enum: EnumDescriptor, value: Any, path: str) -> int:
    """Return the number of an enum's value.

    Numbers without a name are let through, as the binary form lets them through: what they mean is for the call.
    """
    if isinstance(value, str):
        # The library's own look-up fails with a SystemError for what is no text.
        named = next((known for known in enum.values if known.name == value), None)
        if named is None:
            refuse(path, f"{shown(value)!r} is no {enum.name}: known are {', '.join(enum.values_by_name)}")
        return named.number
    return _whole(*_INT32, value, path)


_INT32 = (-(2**31), 2**31 - 1)
_INTEGERS: dict[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: _INT32,
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_SCALARS: dict[int, ValueReader] = {
    FieldDescriptor.CPPTYPE_STRING: read_string,
    FieldDescriptor.CPPTYPE_BOOL: _boolean,
    FieldDescriptor.CPPTYPE_DOUBLE: _number,
}

_KINDS: dict[type, str] = {
    dict: "an object",
    GivenTwice: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
    NoNumber: "NaN or a number beyond 64 bits",
}


def kind_of(value: Any) -> str:
    """Say what a JSON value is. Never the value itself: it may be a secret in the wrong place."""
    if isinstance(value, float) and not value.is_integer():
        return "a fraction" if abs(value) < float("inf") else "an infinite number"
    return _KINDS[type(value)]


def shown(text: str) -> str:
    """Return a caller's text as an error may quote it."""
    shown = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return shown.encode(errors="replace").decode()


def refuse(path: str, text: str) -> NoReturn:
    """Raise InvalidRequestError for the value at ``path``."""
    raise InvalidRequestError(f"{path_shown(path)}: {text}")
