"""Messages of the node's methods, well-formed ones and spoilt ones, from their descriptors. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pgnode.wire import service_pb2 as pb
from pgnode.wire import varint
from tests.fuzz import values
from tests.fuzz.rules import rule

TAGS = ("VLESS", "Trojan", "Shadowsocks")

_IDS = ("", "no-uuid", "00000000-0000-0000-0000-000000000000", "{0D8E1C5A-6A0B-4B0E-9D55-7F2C1E3A4B5C}", "a" * 30)
_NUMBERS = (0, 1, 5, 6, 443, 65_535, 65_536, (1 << 31) - 1)


def some_text(rng: Random, name: str) -> str:
    """Return a text for a field of this name: mostly one that means something there."""
    usual: dict[str, Callable[[], str]] = {
        "email": lambda: f"user{rng.randrange(40)}@demo",
        "name": lambda: f"user{rng.randrange(40)}@demo",
        "inbounds": lambda: rng.choice(TAGS),
        "id": lambda: f"{rng.getrandbits(128):032x}" if rng.random() < 0.8 else rng.choice(_IDS),
        "flow": lambda: rng.choice(("", "xtls-rprx-vision", "none")),
        "method": lambda: rng.choice(("aes-128-gcm", "chacha20-ietf-poly1305", "none", "rot13")),
        "rule": lambda: values.dumps(rule(rng)).decode(),
        "network": lambda: rng.choice(("tcp", "udp", "tcp,udp", "unix")),
        "target_ip": lambda: rng.choice(("127.0.0.1", "::1", "10.1.2.3", "1.2.3")),
        "tag": lambda: rng.choice(("exits", "spread", "nobody")),
        "balancer_tag": lambda: rng.choice(("exits", "spread", "nobody")),
        "target": lambda: rng.choice(("exit-1", "DIRECT", "nobody", "")),
        "field_selectors": lambda: rng.choice(("inbound", "network", "outbound")),
    }
    make = usual.get(name)
    if make is None or rng.random() < 0.3:
        return values.text(rng)
    return make()


def _scalar(rng: Random, field: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return some_text(rng, field.name)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.choice((0, 1, 2, 3, 4, 5, 6, -1, 99))
    return rng.choice(_NUMBERS)


def fill(rng: Random, message: Message, leave_out: float = 0.25) -> None:
    """Fill a message in by chance; each field may be left out."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < leave_out:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for _ in range(rng.randrange(3)):
                getattr(message, field.name)[values.text(rng)[:50]] = values.text(rng)[:50]
        elif field.message_type is not None and field.is_repeated:
            for _ in range(rng.randrange(4)):
                fill(rng, getattr(message, field.name).add(), leave_out)
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            fill(rng, getattr(message, field.name), leave_out)
        elif field.is_repeated:
            getattr(message, field.name).extend(_scalar(rng, field) for _ in range(rng.randrange(4)))
        else:
            setattr(message, field.name, _scalar(rng, field))


def _field(number: int, wire_type: int, data: bytes) -> bytes:
    return varint.encode(number << 3 | wire_type) + data


def spoil(rng: Random, data: bytes) -> bytes:
    """Return the bytes of a message with something that is wrong or unusual on the wire."""
    number = rng.choice((1, 2, 3, 4, 10, 15, 999, (1 << 29) - 1))
    depth = rng.choice(values.DEPTHS)
    at = rng.randrange(len(data) + 1)
    inner = b""
    for _ in range(min(depth, 1000)):
        inner = _field(number, 2, varint.encode(len(inner)) + inner)
    forms: Sequence[Callable[[], bytes]] = (
        lambda: data[:at],
        lambda: data + data,
        lambda: data + _field(number, 0, varint.encode(rng.getrandbits(64))),
        lambda: data + _field(number, 0, b"\xff" * 9 + b"\x01"),
        lambda: data + _field(number, 0, b"\xff" * rng.choice((10, 11, 100))),
        lambda: data + _field(number, 2, varint.encode(rng.choice((1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1)))),
        lambda: data + _field(number, 2, b"\x03a\xff\xfe"),
        lambda: data + _field(number, 2, b"\x03\xed\xa0\x80"),
        lambda: data + _field(number, 5, b"abcd"),
        lambda: data + _field(number, 1, b"abcdefgh"),
        lambda: data + _field(number, 3, b"") * depth + _field(number, 4, b"") * depth,
        lambda: data + _field(number, 3, b"") * depth,
        lambda: data + _field(number, 4, b""),
        lambda: data + _field(number, rng.choice((6, 7)), b"xx"),
        lambda: data + b"\x00\x00",
        lambda: data + inner,
        lambda: values.spoil_bytes(rng, data),
        lambda: values.spoil_bytes(rng, data),
        lambda: rng.randbytes(rng.randrange(1, 200)),
    )
    return rng.choice(forms)()


def some_message(rng: Random, kind: type[Message]) -> Message:
    """Return a message that is well-formed, whatever its content."""
    message = kind()
    fill(rng, message, rng.choice((0.0, 0.2, 0.6)))
    return message


def some_bytes(rng: Random, kind: type[Message]) -> bytes:
    """Return the bytes of a message of this kind, spoilt in half of all cases."""
    data = some_message(rng, kind).SerializeToString()
    return spoil(rng, data) if rng.random() < 0.5 else data


def some_frames(rng: Random) -> bytes:
    """Return the body of a chunked sync, spoilt or not."""
    chunks = [some_message(rng, pb.UsersChunk) for _ in range(rng.randrange(4))]
    if rng.random() < 0.6:
        for index, chunk in enumerate(chunks):
            setattr(chunk, "index", index)  # noqa: B010  # Message has no such field for mypy
            setattr(chunk, "last", index == len(chunks) - 1)  # noqa: B010
    data = b""
    for chunk in chunks:
        body = chunk.SerializeToString()
        if rng.random() < 0.15:
            body = spoil(rng, body)
        data += varint.encode(len(body)) + body + rng.choice((b"", b"", b"\0"))
    forms: Sequence[Callable[[], bytes]] = (
        lambda: data[: rng.randrange(len(data) + 1)],
        lambda: b"\x80" * rng.randrange(1, 12) + data,
        lambda: varint.encode(rng.choice(((1 << 31), (1 << 63), (1 << 64) - 1))) + data,
        lambda: values.spoil_bytes(rng, data),
    )
    return rng.choice(forms)() if rng.random() < 0.4 else data
