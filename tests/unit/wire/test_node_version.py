"""The version that panels are told, read as they read it."""

from __future__ import annotations

import pytest
from packaging.version import Version

from pgnode import __version__
from pgnode.wire.node_version import API_LEVEL, CHARACTERS_MAX, told_version

OWN = ["0.6.0", "0.6.3", "10.11.12", "0.7.0rc1", "0.6.0+local.build-17.of.a.very.long.name", "1.0-2", "", __version__]


def as_the_client_reads(text: str) -> Version:
    """As ``_parse_version`` of the panel's client does."""
    return Version(text.split("+", 1)[0].split("-", 1)[0])


def as_the_dashboard_reads(text: str) -> list[int]:
    """As JavaScript's ``split('.').map(Number)``, in which what is no number counts as 0."""
    return [int(part) if part.isdecimal() else 0 for part in text.removeprefix("v").split(".")]


def is_lower(current: list[int], latest: list[int]) -> bool:
    """Compare as the dashboard does: place by place, where a missing one is 0."""
    length = max(len(current), len(latest))
    return current + [0] * (length - len(current)) < latest + [0] * (length - len(latest))


@pytest.mark.parametrize("own", OWN)
def test_nobody_takes_it_for_older_than_the_api_that_is_spoken(own: str) -> None:
    told = told_version(own)
    assert as_the_client_reads(told) >= Version(API_LEVEL)
    assert as_the_client_reads(told) >= Version("0.2.0"), "the chunked sync"
    assert not is_lower(as_the_dashboard_reads(told), as_the_dashboard_reads(API_LEVEL))
    # It is a version as a whole, too, and not older either.
    assert Version(told) >= Version(API_LEVEL)
    assert len(told) <= CHARACTERS_MAX


def test_a_newer_api_is_an_update() -> None:
    told = told_version("0.6.0")
    for newer in ("0.5.3", "0.6.0", "1.0"):
        assert as_the_client_reads(told) < Version(newer)
        assert is_lower(as_the_dashboard_reads(told), as_the_dashboard_reads(newer))


def test_it_tells_the_nodes_own_version_too() -> None:
    assert told_version("0.6.0") == "0.5.2.0+pgnode.0.6.0"
    assert told_version("0.6.0+local") == "0.5.2.0+pgnode.0.6.0.local"
    assert told_version("") == "0.5.2.0+pgnode"
