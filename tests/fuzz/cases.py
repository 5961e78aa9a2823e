"""One input of a fuzzer, as it is sent, saved and sent again. Pure."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

#: The key of the nodes that are fuzzed. They listen on loopback, in a network of their own where that is possible.
KEY = "0d8e1c5a-6a0b-4b0e-9d55-7f2c1e3a4b5c"

Ending = Literal["waits", "cuts"]


@dataclass(frozen=True, slots=True)
class HttpCase:
    """Bytes for a connection over TLS."""

    #: What is sent, with a short pause between two of them.
    parts: tuple[bytes, ...]
    #: The REST API or the maintenance API.
    port: Literal["service", "api"] = "service"
    #: The method and path of the one well-formed call that this is; None where the framing itself is odd.
    route: tuple[str, str] | None = None
    #: Whether the caller waits for the answer or cuts the connection off once all is sent.
    ending: Ending = "waits"
    #: Sent to the second node, on which cores may be replaced.
    second: bool = False


@dataclass(frozen=True, slots=True)
class GrpcCase:
    """Bytes for a connection over TLS that speaks HTTP/2."""

    parts: tuple[bytes, ...]
    #: The name of the method where the frames are one whole call; None where frames are odd.
    method: str | None = None
    ending: Ending = "waits"


Case = HttpCase | GrpcCase


def to_json(case: Case) -> str:
    """Return a case as text, for a file."""
    raw: dict[str, Any] = {"kind": type(case).__name__, **asdict(case)}
    raw["parts"] = [base64.b64encode(part).decode() for part in case.parts]
    raw["shown"] = [repr(part[:2000]) for part in case.parts[:20]]
    return json.dumps(raw, indent=1)


def from_json(text: str) -> Case:
    """Return the case that :func:`to_json` made a text of."""
    raw = json.loads(text)
    del raw["shown"]
    raw["parts"] = tuple(base64.b64decode(part) for part in raw["parts"])
    if raw.pop("kind") == "GrpcCase":
        return GrpcCase(**raw)
    raw["route"] = tuple(raw["route"]) if raw["route"] else None
    return HttpCase(**raw)
