"""Whether an inbound is altered or swapped: by what it costs, and never where live connections would be cut."""

from __future__ import annotations

from pgnode.supervisor.users.swap_policy import (
    SWAP_AWAY_MAX_MS,
    SWAP_AWAY_MS_BY_PROTOCOL,
    SWAP_PAUSE_SECONDS,
    choose_swap,
    users_in_swap,
)
from pgnode.xray.config.inbounds import InboundSpec
from tests.unit.supervisor.users.models import TROJAN, VLESS


def test_few_changes_are_altered_many_are_swapped() -> None:
    assert not choose_swap(VLESS, 10, 10_000)
    assert choose_swap(VLESS, 10_000, 10_000)
    assert not choose_swap(VLESS, 1, 1)


def test_connections_that_end_with_their_listener_are_never_swapped() -> None:
    for transport in ("grpc", "xhttp", "mkcp", "hysteria"):
        spec = InboundSpec(tag="t", protocol="vless", transport=transport, managed=True)
        assert not choose_swap(spec, 100_000, 100_000)
    assert not choose_swap(InboundSpec(tag="h", protocol="hysteria", managed=True), 100_000, 100_000)


def test_shadowsocks_2022_is_swapped_early() -> None:
    spec = InboundSpec(tag="s", protocol="shadowsocks", method="2022-blake3-aes-128-gcm", managed=True)
    assert choose_swap(spec, 50, 10_000)


def test_an_inbound_is_not_swapped_again_at_once() -> None:
    assert choose_swap(VLESS, 10_000, 10_000)
    assert not choose_swap(VLESS, 10_000, 10_000, SWAP_PAUSE_SECONDS - 0.1)
    assert choose_swap(VLESS, 10_000, 10_000, SWAP_PAUSE_SECONDS)


def test_a_swap_holds_no_more_users_than_the_core_adds_in_time() -> None:
    assert users_in_swap(TROJAN) == int(SWAP_AWAY_MAX_MS / SWAP_AWAY_MS_BY_PROTOCOL["trojan"])
    assert users_in_swap(VLESS) > users_in_swap(TROJAN)
