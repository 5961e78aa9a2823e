"""Messages as proto3 JSON, both ways, for callers who read and write by hand. Pure.

Out, the protobuf library does it: fields have the names of the ``.proto``, every field is there, also at its default, and
integers of 64 bits are strings, as proto3 JSON has them. In, this module does it, by the rules of proto3 JSON: both
spellings of a field's name, integers as numbers or strings, null for a field that is not there. It is stricter than the
library, which takes ``[]`` for an empty message (as ``Users`` an order to remove everybody) and ``true`` for an enum's 1,
and it names the path of what is wrong.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from pgnode.errors import InvalidRequestError

#: Answers up to this size are indented for the eye; larger ones are for programs.
INDENT_BYTES = 16_384

#: Longest part of a caller's own text that an error repeats.
_SHOWN_CHARACTERS = 40

#: No integer of 64 bits has more digits; numbers of millions of digits take minutes to read.
_DIGITS_MAX = 20

_WHOLE = re.compile(f"-?[0-9]{{1,{_DIGITS_MAX}}}")

_M = TypeVar("_M", bound=Message)

#: Makes a field's value of a JSON value; the string is the path of the latter.
_Read = Callable[[Any, str], Any]


class _GivenTwice(dict[str, Any]):
    """An object in which ``name`` came twice."""

    name = ""


class _NoNumber:
    """A number that cannot be read, or that JSON does not have."""


def text_of(message: Message) -> bytes:
    """Return ``message`` as JSON, UTF-8, ended by a line feed."""
    indent = 2 if message.ByteSize() <= INDENT_BYTES else None
    return _printed(message, indent)


def line_of(message: Message) -> bytes:
    """Return ``message`` as one line of JSON."""
    return _printed(message, None)


def _printed(message: Message, indent: int | None) -> bytes:
    text = json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=indent,
        ensure_ascii=False,
    )
    return text.encode() + b"\n"


def message_of(kind: type[_M], text: bytes) -> _M:
    """Read a message.

    Args:
        kind: Its type.
        text: JSON, UTF-8; no text at all is the empty message.

    Returns:
        The message.

    Raises:
        InvalidRequestError: The text is wrong; the error begins with the path, ``users[3].email: …``.
    """
    message = kind()
    if text:
        _fill(message, _loaded(text), "")
    return message


def _loaded(text: bytes) -> Any:
    try:
        return json.loads(
            text.decode(), object_pairs_hook=_object, parse_int=_integer, parse_constant=lambda _: _NoNumber()
        )
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"malformed JSON: byte {error.start} is no UTF-8") from None
    except RecursionError:
        raise InvalidRequestError("malformed JSON: nested too deeply") from None
    except ValueError as error:
        raise InvalidRequestError(f"malformed JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    # Where it is, only the walk knows.
    twice = _GivenTwice(made)
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            twice.name = name
        seen.add(name)
    return twice


def _integer(digits: str) -> Any:
    return int(digits) if len(digits) <= _DIGITS_MAX else _NoNumber()


def _fill(message: Message, value: Any, path: str) -> None:
    descriptor = message.DESCRIPTOR
    where = path or descriptor.name
    fields = _fields(descriptor)
    given: set[str] = set()
    for name, inner in _members(value, where).items():
        known = fields.get(name)
        inner_path = f"{path}.{name}" if path else name
        if known is None:
            names = ", ".join(field.name for field in descriptor.fields)
            _refuse(_shown(inner_path), f"unknown field: {descriptor.name} has {names or 'none'}")
        field, read = known
        if field.name in given:
            _refuse(inner_path, f"given twice, as {field.name} and as {field.json_name}")
        given.add(field.name)
        if inner is not None:
            _set(message, field, read, inner, inner_path)


def _set(message: Message, field: FieldDescriptor, read: _Read | None, value: Any, path: str) -> None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        _set_map(getattr(message, field.name), entry, value, path)
    elif field.is_repeated:
        if not isinstance(value, list):
            _refuse(path, f"a list is expected, not {_kind(value)}")
        repeated = getattr(message, field.name)
        for index, item in enumerate(value):
            if read is None:
                _fill(repeated.add(), item, f"{path}[{index}]")
            else:
                repeated.append(read(item, f"{path}[{index}]"))
    elif read is None:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _fill(inner, value, path)
    else:
        setattr(message, field.name, read(value, path))


def _set_map(target: Any, entry: Descriptor, value: Any, path: str) -> None:
    """Fill a map; all maps of the node's messages have strings for keys and scalars for values."""
    read = _reader(entry.fields_by_name["value"])
    assert read is not None
    for key, item in _members(value, path).items():
        at = f"{path}[{_shown(key)!r}]"
        target[_string(key, at)] = read(item, at)


def _members(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(path, f"an object is expected, not {_kind(value)}")
    if isinstance(value, _GivenTwice):
        _refuse(path, f"{_shown(value.name)!r} is given twice")
    return value


@functools.cache
def _fields(descriptor: Descriptor) -> dict[str, tuple[FieldDescriptor, _Read | None]]:
    """List a message's fields by both spellings of their names, with what reads a value; None where that is a message."""
    known: dict[str, tuple[FieldDescriptor, _Read | None]] = {}
    for field in descriptor.fields:
        known[field.name] = known[field.json_name] = field, _reader(field)
    return known


def _reader(field: FieldDescriptor) -> _Read | None:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return None
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        return functools.partial(_enum, field.enum_type)
    if kind in _INTEGERS:
        return functools.partial(_whole, *_INTEGERS[kind])
    return _SCALARS[kind]


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        _refuse(path, f"a string is expected, not {_kind(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            _refuse(path, "half of a surrogate pair is no text")
    return value


def _boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        _refuse(path, f"true or false is expected, not {_kind(value)}")
    return value


def _number(value: Any, path: str) -> float:
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        _refuse(path, f"a number is expected, not {_kind(value)}")
    return float(value)


def _whole(low: int, high: int, value: Any, path: str) -> int:
    number = value
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _WHOLE.fullmatch(value)):
        number = int(value)
    if not isinstance(number, int) or isinstance(number, bool):
        _refuse(path, f"a whole number is expected, not {_kind(value)}")
    if not low <= number <= high:
        _refuse(path, f"out of range: allowed are {low} to {high}")
    return number


def _enum(enum: EnumDescriptor, value: Any, path: str) -> int:
    """Return the number of an enum's value.

    Numbers without a name are let through, as the binary form lets them through: what they mean is for the call.
    """
    if isinstance(value, str):
        named = enum.values_by_name.get(value)
        if named is None:
            _refuse(path, f"{_shown(value)!r} is no {enum.name}: known are {', '.join(enum.values_by_name)}")
        return named.number
    return _whole(*_INT32, value, path)


_INT32 = (-(2**31), 2**31 - 1)
_INTEGERS: dict[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: _INT32,
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_SCALARS: dict[int, _Read] = {
    FieldDescriptor.CPPTYPE_STRING: _string,
    FieldDescriptor.CPPTYPE_BOOL: _boolean,
    FieldDescriptor.CPPTYPE_DOUBLE: _number,
}

_KINDS: dict[type, str] = {
    dict: "an object",
    _GivenTwice: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
    _NoNumber: "NaN or a number beyond 64 bits",
}


def _kind(value: Any) -> str:
    """Say what a JSON value is. Never the value itself: it may be a secret in the wrong place."""
    if isinstance(value, float) and not value.is_integer():
        return "a fraction" if abs(value) < float("inf") else "an infinite number"
    return _KINDS[type(value)]


def _shown(text: str) -> str:
    shown = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return shown.encode(errors="replace").decode()


def _refuse(path: str, text: str) -> NoReturn:
    raise InvalidRequestError(f"{path}: {text}")
