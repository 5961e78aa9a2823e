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
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from pgnode.errors import InvalidRequestError
from pgnode.wire.json_depth import is_too_deep
from pgnode.wire.json_values import (
    DIGITS_MAX,
    GivenTwice,
    NoNumber,
    ValueReader,
    kind_of,
    read_string,
    reader_of,
    refuse,
    shown,
)

#: Answers up to this size are indented for the eye; larger ones are for programs.
INDENT_BYTES = 16_384

_M = TypeVar("_M", bound=Message)


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
        found = json.loads(
            text.decode(), object_pairs_hook=_object, parse_int=_integer, parse_constant=lambda _: NoNumber()
        )
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"malformed JSON: byte {error.start} is no UTF-8") from None
    except RecursionError:
        raise InvalidRequestError("malformed JSON: nested too deeply") from None
    except ValueError as error:
        raise InvalidRequestError(f"malformed JSON: {error}") from None
    if is_too_deep(found):
        raise InvalidRequestError("malformed JSON: nested too deeply")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    # Where it is, only the walk knows.
    twice = GivenTwice(made)
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            twice.name = name
        seen.add(name)
    return twice


def _integer(digits: str) -> Any:
    return int(digits) if len(digits) <= DIGITS_MAX else NoNumber()


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
            refuse(shown(inner_path), f"unknown field: {descriptor.name} has {names or 'none'}")
        field, read = known
        if field.name in given:
            refuse(inner_path, f"given twice, as {field.name} and as {field.json_name}")
        given.add(field.name)
        if inner is not None:
            _set(message, field, read, inner, inner_path)


def _set(message: Message, field: FieldDescriptor, read: ValueReader | None, value: Any, path: str) -> None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        _set_map(getattr(message, field.name), entry, value, path)
    elif field.is_repeated:
        if not isinstance(value, list):
            refuse(path, f"a list is expected, not {kind_of(value)}")
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
    read = reader_of(entry.fields_by_name["value"])
    assert read is not None
    for key, item in _members(value, path).items():
        at = f"{path}[{shown(key)!r}]"
        target[read_string(key, at)] = read(item, at)


def _members(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        refuse(path, f"an object is expected, not {kind_of(value)}")
    if isinstance(value, GivenTwice):
        refuse(path, f"{shown(value.name)!r} is given twice")
    return value


@functools.cache
def _fields(descriptor: Descriptor) -> dict[str, tuple[FieldDescriptor, ValueReader | None]]:
    """List a message's fields by both spellings of their names, with what reads a value; None where that is a message."""
    known: dict[str, tuple[FieldDescriptor, ValueReader | None]] = {}
    for field in descriptor.fields:
        known[field.name] = known[field.json_name] = field, reader_of(field)
    return known
