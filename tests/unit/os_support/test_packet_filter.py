"""The kernel's filter on sockets that listen: its program, and what it does to real callers."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.os_support.packet_filter import Instruction, Network, program, restrict, restrict_listeners

#: Long enough for a handshake that nothing holds up; nobody waits for it in vain but who is kept away.
KEPT_AWAY_SECONDS = 0.3
LONG_SECONDS = 30.0


SYN, ACK, PUSH = 0x02, 0x10, 0x08


def lets_through(
    instructions: list[Instruction], sender: ipaddress.IPv4Address | ipaddress.IPv6Address, flags: int = SYN
) -> bool:
    """Run a program as the kernel does, on a packet of this sender."""
    found, at = 0, 0
    header = {4: bytes(12), 6: bytes(8)}[sender.version] + sender.packed
    for _ in range(len(instructions)):
        code, if_true, if_false, operand = instructions[at]
        at += 1
        match code:
            case 0x20 if operand == 0xFFFFF000:
                found = {4: 0x0800, 6: 0x86DD}[sender.version]
            case 0x30:
                assert operand == 13
                found = flags
            case 0x20:
                start = operand - 0xFFF00000
                found = int.from_bytes(header[start : start + 4], "big")
            case 0x54:
                found &= operand
            case 0x15:
                at += if_true if found == operand else if_false
            case 0x05:
                at += operand
            case 0x06:
                return operand != 0
            case _:
                pytest.fail(f"no such instruction: {code}")
    pytest.fail("it does not end")


def networks_of(version: int) -> st.SearchStrategy[Network]:
    bits = 32 if version == 4 else 128
    return st.tuples(st.integers(0, 2**bits - 1), st.integers(0, bits)).map(
        lambda found: ipaddress.ip_network(
            (ipaddress.IPv4Address(found[0]) if version == 4 else ipaddress.IPv6Address(found[0]), found[1]),
            strict=False,
        )
    )


NETWORKS = st.lists(networks_of(4) | networks_of(6), max_size=8)
ADDRESSES = st.ip_addresses()


@given(NETWORKS, ADDRESSES, st.data())
def test_the_program_lets_through_who_is_in_one_of_the_networks(
    networks: list[Network], stranger: ipaddress.IPv4Address | ipaddress.IPv6Address, data: st.DataObject
) -> None:
    code = program(networks)
    known = not networks or any(stranger in network for network in networks)
    assert lets_through(code, stranger) == known
    others_only = program(networks, new_connections=False)
    assert not lets_through(others_only, stranger)
    for flags in (ACK, ACK | PUSH, SYN | ACK):
        assert lets_through(others_only, stranger, flags) == known
    if networks:
        network = data.draw(st.sampled_from(networks))
        for friend in (network.network_address, network.broadcast_address):
            assert lets_through(code, friend)
    assert all(0 <= part < 256 for instruction in code for part in instruction[1:3])


@contextlib.contextmanager
def listening(host: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.bind((host, 0))
        listener.listen()
        yield listener


@contextlib.contextmanager
def calling(listener: socket.socket, sender: str) -> Iterator[socket.socket]:
    with socket.socket(listener.family) as caller:
        caller.setblocking(False)
        caller.bind((sender, 0))
        caller.connect_ex(listener.getsockname()[:2])
        yield caller


def connected(caller: socket.socket, seconds: float) -> bool:
    return bool(select.select([], [caller], [], seconds)[1]) and not caller.getsockopt(
        socket.SOL_SOCKET, socket.SO_ERROR
    )


@pytest.mark.parametrize("where", ["127.0.0.1", "::1"])
def test_others_are_kept_away_until_they_are_let_in(where: str) -> None:
    stranger, friends = ("127.0.0.3", "127.0.0.1/32") if where == "127.0.0.1" else ("::1", "2001:db8::/32")
    if ":" in where and not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    with listening(where) as listener:
        restrict(listener, [ipaddress.ip_network(friends)])
        with calling(listener, stranger) as caller:
            assert not connected(caller, KEPT_AWAY_SECONDS)
            restrict(listener, [])
            restrict(listener, [])
            assert connected(caller, LONG_SECONDS), "it asks again by itself"


@pytest.mark.parametrize("networks", [[], [ipaddress.ip_network("127.0.0.0/8")]])
def test_a_socket_that_takes_no_new_ones_serves_those_it_has(networks: list[Network]) -> None:
    with listening("127.0.0.1") as listener, calling(listener, "127.0.0.2") as first:
        assert connected(first, LONG_SECONDS)
        assert restrict_listeners(listener.getsockname()[1], networks, new_connections=False) == 1
        with calling(listener, "127.0.0.2") as late:
            assert not connected(late, KEPT_AWAY_SECONDS)
            accepted, _ = listener.accept()
            with accepted:
                first.send(b"is heard")
                assert select.select([accepted], [], [], LONG_SECONDS)[0]
                assert accepted.recv(64) == b"is heard"
            restrict(listener, networks)
            assert connected(late, LONG_SECONDS), "it asks again by itself"


def test_who_is_named_connects() -> None:
    with listening("127.0.0.1") as listener:
        restrict(listener, [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("127.0.0.2/31")])
        with calling(listener, "127.0.0.3") as caller:
            assert connected(caller, LONG_SECONDS)


def test_sockets_of_a_library_are_found_by_their_port() -> None:
    with listening("127.0.0.1") as listener, listening("127.0.0.1") as other:
        port = listener.getsockname()[1]
        assert restrict_listeners(port, [ipaddress.ip_network("127.0.0.1")]) == 1
        with calling(listener, "127.0.0.3") as kept_away, calling(other, "127.0.0.3") as free:
            assert connected(free, LONG_SECONDS)
            assert not connected(kept_away, KEPT_AWAY_SECONDS)
        assert listener.fileno() >= 0
    assert restrict_listeners(port, []) == 0


def test_more_than_the_kernel_takes_is_an_error() -> None:
    many = [ipaddress.ip_network((number << 64, 128)) for number in range(1, 1500)]
    with listening("127.0.0.1") as listener, pytest.raises(OSError, match=r"Invalid argument|Cannot allocate"):
        restrict(listener, many)
