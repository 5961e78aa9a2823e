"""A filter in the kernel, on a socket that listens: packets from other addresses never get there.

So whoever may not connect sees a port on which nobody listens, and costs no handshake. One that is about to close keeps new
connections away: the kernel would reset those that it has not accepted yet, and who asks again finds another socket that listens
on the port. Connections inherit the filter. It needs
no privilege; where the kernel has no such filters, callers have to be refused after the handshake.

The program is that of the classic packet filter (Documentation/networking/filter.rst of Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: One instruction: code, jump if true, jump if false, operand.
Instruction = tuple[int, int, int, int]

_INSTRUCTION: Final = struct.Struct("=HBBI")

#: asm/socket.h of Linux, as most machines have it.
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27

#: linux/filter.h: load a word, load a byte, and with an operand, jump if equal, jump, return.
_LOAD, _LOAD_BYTE, _AND, _JUMP_IF_EQUAL, _JUMP, _RETURN = 0x20, 0x30, 0x54, 0x15, 0x05, 0x06

#: Where the protocol of a packet, and the header of IP, are to be had.
_PROTOCOL: Final = 0xFFFFF000
_IP_HEADER: Final = 0xFFF00000

_IPV4, _IPV6 = 0x0800, 0x86DD

#: Where the flags are in the header of TCP, with which a packet begins here, and two of them (RFC 9293, 3.1).
_FLAGS: Final = 13
_SYN, _ACK = 0x02, 0x10

#: Where the address of the sender is in the header, by version.
_SENDER: Final = {4: 12, 6: 8}

_ACCEPT: Final = (_RETURN, 0, 0, 0xFFFFFFFF)
_DROP: Final = (_RETURN, 0, 0, 0)


def program(networks: Sequence[Network], *, new_connections: bool = True) -> list[Instruction]:
    """Write the program that lets packets from these networks through.

    Args:
        networks: The networks; none: all there are.
        new_connections: Whether packets that open a connection get through, too.

    Returns:
        Its instructions.
    """
    opens = [(_LOAD_BYTE, 0, 0, _FLAGS), (_AND, 0, 0, _SYN | _ACK), (_JUMP_IF_EQUAL, 0, 1, _SYN), _DROP]
    return [*([] if new_connections else opens), *(_of_networks(networks) if networks else [_ACCEPT])]


def _of_networks(networks: Iterable[Network]) -> list[Instruction]:
    by_version: dict[int, list[Instruction]] = {4: [], 6: []}
    for network in networks:
        by_version[network.version] += _of_network(network)
    v4 = [*by_version[4], _DROP]
    v6 = [*by_version[6], _DROP]
    return [
        (_LOAD, 0, 0, _PROTOCOL),
        (_JUMP_IF_EQUAL, 0, 1, _IPV6),
        (_JUMP, 0, 0, len(v4) + 2),
        (_JUMP_IF_EQUAL, 1, 0, _IPV4),
        _DROP,
        *v4,
        *v6,
    ]


def restrict(connection: socket.socket, networks: Sequence[Network], *, new_connections: bool = True) -> None:
    """Let packets from these networks alone through to a socket; from everywhere where there are none.

    Args:
        connection: The socket.
        networks: The networks.
        new_connections: Whether connections may be opened.

    Raises:
        OSError: The kernel does not take the filter; the one before stays.
    """
    if not networks and new_connections:
        with contextlib.suppress(FileNotFoundError):
            connection.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        return
    instructions = program(networks, new_connections=new_connections)
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*one) for one in instructions))
    told = struct.pack("HP", len(instructions), ctypes.addressof(code))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, told)


def restrict_listeners(port: int, networks: Sequence[Network], *, new_connections: bool = True) -> int:
    """Do so for all sockets of this process that listen on a port: those of a library, say.

    Args:
        port: The port.
        networks: The networks.
        new_connections: Whether connections may be opened.

    Returns:
        How many there were.

    Raises:
        OSError: The kernel does not take the filter.
    """
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            # Not a copy of the descriptor: that would keep the socket alive where its holder closes it meanwhile.
            listener = socket.socket(fileno=int(name))
        except OSError:
            continue
        try:
            if _listens(listener, port):
                restrict(listener, networks, new_connections=new_connections)
                found += 1
        finally:
            listener.detach()
    return found


def _listens(found: socket.socket, port: int) -> bool:
    try:
        return (
            found.family in (socket.AF_INET, socket.AF_INET6)
            and bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            and found.getsockname()[1] == port
        )
    except OSError:
        return False


def _of_network(network: Network) -> list[Instruction]:
    """Return what lets packets from one network through, and goes on behind its end with others."""
    start, words = _IP_HEADER + _SENDER[network.version], network.max_prefixlen // 32
    tests: list[list[Instruction]] = []
    for number in range(words):
        shift = 32 * (words - 1 - number)
        mask = int(network.netmask) >> shift & 0xFFFFFFFF
        if not mask:
            break
        test = [(_LOAD, 0, 0, start + 4 * number)]
        if mask != 0xFFFFFFFF:
            test.append((_AND, 0, 0, mask))
        tests.append([*test, (_JUMP_IF_EQUAL, 0, 0, int(network.network_address) >> shift & 0xFFFFFFFF)])
    size = sum(map(len, tests)) + 1
    code: list[Instruction] = []
    for test in tests:
        code += test[:-1]
        # Past the end, from the instruction behind this one.
        code.append((*test[-1][:2], size - len(code) - 1, test[-1][3]))
    return [*code, _ACCEPT]
