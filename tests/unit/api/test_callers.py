"""Who may connect, and who comes again and again without a right key."""

from __future__ import annotations

import ipaddress

import pytest

from pgnode.api.callers import (
    SAY_SECONDS,
    WRONG_KEY_ADDRESSES,
    AllowedCallers,
    Strikes,
    WrongKeys,
    counted_address,
)


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds


def test_strikes_fade_and_only_the_latest_are_remembered() -> None:
    strikes = Strikes(per_second=1.0, remembered=2)
    assert [strikes.add("a", now) for now in (0.0, 0.0, 0.5, 100.0)] == [1.0, 2.0, 2.5, 1.0]
    strikes.add("b", 100.0)
    strikes.add("c", 100.0)
    assert strikes.add("a", 100.0) == 1.0, "it was forgotten"
    assert repr(strikes) == "Strikes(2 keys)"


def test_so_many_a_minute_are_borne_and_who_stops_is_forgiven_within_one() -> None:
    clock = Clock()
    keys = WrongKeys(3, clock.now)
    assert [keys.came("192.0.2.1") for _ in range(5)] == [False, False, False, True, True]
    assert not keys.came("192.0.2.2"), "others are not meant"
    for _ in range(1000):
        assert keys.came("192.0.2.1")
    clock.seconds += 81.0
    assert not keys.came("192.0.2.1")
    for _ in range(30):
        clock.seconds += 20.0
        assert not keys.came("192.0.2.3"), "three a minute, for ever"


def test_without_a_limit_nobody_is_over_it() -> None:
    keys = WrongKeys(0, Clock().now)
    assert not any(keys.came("192.0.2.1") for _ in range(1000))


def test_it_is_told_once_a_minute_with_how_many_more_there_were() -> None:
    clock, told = Clock(), list[tuple[str, int]]()
    keys = WrongKeys(1, clock.now, lambda host, more: told.append((host, more)))
    for _ in range(10):
        keys.came("192.0.2.1")
    keys.came("192.0.2.2")
    keys.came("192.0.2.2")
    assert told == [("192.0.2.1", 0)]
    clock.seconds += SAY_SECONDS
    keys.came("2001:db8::1")
    keys.came("2001:db8::2")
    assert told[1:] == [("2001:db8::2", 9)]


def test_no_more_addresses_are_remembered_than_are_bearable() -> None:
    keys = WrongKeys(1, Clock().now)
    for number in range(WRONG_KEY_ADDRESSES * 2):
        keys.came(f"2001:db8:{number:x}::1")
    assert repr(keys) == f"WrongKeys(1 a minute, {WRONG_KEY_ADDRESSES} addresses)"


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_what_an_address_is_counted_as(host: str, counted: str) -> None:
    assert counted_address(host) == counted


def test_who_may_connect() -> None:
    named = [ipaddress.ip_network("203.0.113.0/24"), ipaddress.ip_network("2001:db8::/32")]
    callers = AllowedCallers(named, ["198.51.100.1", "0.0.0.0", "odd"])
    for host in ("203.0.113.9", "::ffff:203.0.113.9", "2001:db8::5", "127.0.0.1", "::1", "198.51.100.1"):
        assert callers.admit(host), host
    for host in ("203.0.114.9", "2001:db9::5", "198.51.100.2", "", "odd"):
        assert not callers.admit(host), host
    assert repr(callers) == "AllowedCallers(5 networks)"


def test_without_a_list_everybody_may() -> None:
    callers = AllowedCallers((), ["198.51.100.1"])
    assert callers.networks == ()
    assert callers.admit("203.0.113.9")
    assert callers.admit("odd")
