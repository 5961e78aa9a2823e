"""The doors of the node, each with the fuzzer that knocks at it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.fuzz import http2, http_requests, json_calls
from tests.fuzz.cases import Case


@dataclass(frozen=True, slots=True)
class Door:
    """One door."""

    name: str
    what: str
    generate: Callable[[Random], Case]
    #: So many inputs are under way at once: many where some have to wait for a time limit.
    lanes: int


def _grpc(rng: Random) -> Case:
    return http2.whole_call(rng) if rng.random() < 0.6 else http2.odd_frames(rng)


DOORS = {
    door.name: door
    for door in (
        Door("gate", "HTTP framing over TLS, both ports", http_requests.framing, 16),
        Door("protobuf", "protobuf bodies of every method", http_requests.protobuf_call, 4),
        Door("json", "JSON bodies of every method and of the maintenance API", json_calls.json_call, 4),
        Door("rules", "routing rules and balancers", json_calls.routing_call, 4),
        Door("configs", "Xray configs made from the samples", json_calls.config_call, 1),
        Door("grpc", "HTTP/2 frames, metadata and messages of gRPC", _grpc, 16),
    )
}


def make_case(door: str, seed: int, number: int) -> Case:
    """Return an input; the same for the same three."""
    return DOORS[door].generate(Random(f"{seed} {door} {number}"))
