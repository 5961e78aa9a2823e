"""Reads the fields of a parsed JSON object and says, for a caller, which one is wrong and what it should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgnode.errors import InvalidRequestError
from pgnode.wire.texts import shown
from pgnode.xray.config.inbounds import json_type
from pgnode.xray.config.names import unplain
from pgnode.xray.proto import net_pb2


def folded(part: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Write the fields ``names`` of ``part`` in this spelling: the core takes fields in any case, and the later of two."""
    wanted = {name.lower(): name for name in names}
    return {wanted.get(key.lower(), key): value for key, value in part.items()}


class FieldReader:
    """Reads one JSON object, called ``where`` in errors. A field that is null is not there.

    ``strict`` also refuses empty entries, ports that can never match and control characters, which the core takes. Raises
    InvalidRequestError.
    """

    def __init__(self, part: Mapping[str, Any], where: str, strict: bool) -> None:
        self._part = part
        self._where = where
        self._strict = strict

    def at(self, name: str) -> str:
        """Name a field in an error."""
        return f"{self._where}: {name}"

    def _wrong(self, name: str, wanted: str, value: object) -> InvalidRequestError:
        return InvalidRequestError(f"{self.at(name)} must be {wanted}, not {json_type(value)}")

    def text(self, name: str) -> str:
        """Read a string; "" when it is not there."""
        value = self._part.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return self._checked(value, name)

    def name(self, name: str) -> str:
        """Read a string that logs and callers are shown; "" when it is not there."""
        value = self.text(name)
        if self._strict and (fault := unplain(value, is_name=True)) is not None:
            raise InvalidRequestError(f"{self.at(name)} {fault}")
        return value

    def _checked(self, value: str, name: str) -> str:
        # JSON can escape half a surrogate pair; UTF-8 cannot carry it.
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise InvalidRequestError(f"{self.at(name)} holds half a surrogate pair, which is no text")
        if self._strict and (fault := unplain(value, is_name=False)) is not None:
            raise InvalidRequestError(f"{self.at(name)} {fault}")
        return value

    def texts(self, name: str) -> list[str]:
        """Read a list of strings, or one string with commas."""
        value = self._part.get(name)
        if value is None:
            return []
        entries = value.split(",") if isinstance(value, str) else value
        if not isinstance(entries, list):
            raise self._wrong(name, "a list of strings or a string", value)
        for entry in entries:
            if not isinstance(entry, str):
                raise self._wrong(name, "a list of strings", entry)
            if self._strict and not entry.strip():
                raise InvalidRequestError(f"{self.at(name)} has an empty entry")
            self._checked(entry, name)
        if self._strict:
            entries = [entry.strip() for entry in entries]
        if self._strict and not entries:
            raise InvalidRequestError(f"{self.at(name)} is empty: leave it out or name something")
        return entries

    def items(self, name: str, kind: type, plural: str) -> list[Any]:
        """Read a list whose items are of one kind, called ``plural`` in errors."""
        value = self._part.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
            raise self._wrong(name, f"a list of {plural}", value)
        return value

    def section(self, name: str) -> Mapping[str, Any]:
        """Read an object; an empty one when it is not there."""
        value = self._part.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(name, "an object", value)
        return value

    def text_map(self, name: str) -> dict[str, str]:
        """Read an object whose values are strings."""
        found = self.section(name)
        for key, value in found.items():
            if not isinstance(value, str):
                raise self._wrong(f"{name}.{key}", "a string", value)
            self._checked(key + value, name)
        return dict(found)

    def number(self, name: str) -> float:
        """Read a number; 0 when it is not there."""
        value = self._part.get(name)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number", value)
        return value

    def ports(self, name: str) -> net_pb2.PortList | None:
        """Read one port, or ranges of ports in a string; None when they are not there."""
        value = self._part.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise self._wrong(name, 'a number or a string such as "80,1000-2000"', value)
        # The core takes the number 0 for no port at all.
        text = ("" if value == 0 and not self._strict else str(value)) if isinstance(value, int) else value
        ranges = [self._port_range(part.strip(), name) for part in text.split(",") if part.strip()]
        if self._strict and not ranges:
            raise InvalidRequestError(f"{self.at(name)} is empty: leave it out or name a port")
        return net_pb2.PortList(range=ranges)

    def _port_range(self, text: str, name: str) -> net_pb2.PortRange:
        first, dash, last = text.partition("-")
        low, high = self._port(first, name), self._port(last if dash else first, name)
        if self._strict and low > high:
            raise InvalidRequestError(f"{self.at(name)}: the range {shown(text)} runs backwards")
        return net_pb2.PortRange(From=low, To=high)

    def _port(self, text: str, name: str) -> int:
        digits = text.strip()
        # Of vlessRoute, any two bytes are a value; of ports, 0 is none that anybody connects to.
        lowest = 1 if self._strict and name != "vlessRoute" else 0
        if not digits.isascii() or not digits.isdigit() or not lowest <= int(digits.lstrip("0")[:9] or 0) <= 65535:
            raise InvalidRequestError(f"{self.at(name)}: {shown(text)} is no port ({lowest} to 65535)")
        return int(digits)
