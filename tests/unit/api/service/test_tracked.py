"""A tracked response is the answer's bytes and whom to tell."""

from __future__ import annotations

from pgnode.api.service.tracked import TrackedResponse


def test_it_is_taken_apart_into_its_two_sides() -> None:
    told: list[bool] = []
    body, settle = TrackedResponse(b"stats", told.append)
    settle(True)
    assert (body, told) == (b"stats", [True])
