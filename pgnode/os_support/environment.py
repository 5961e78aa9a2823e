"""The environment that processes of this node inherit: what they may need, and nothing that opens anything."""

from __future__ import annotations

from collections.abc import Collection, MutableMapping
from typing import Final

#: Variables that programs commonly need: where things are, language and time, trust in certificates, proxies.
NAMES: Final = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "TERM",
        "COLUMNS",
        "LINES",
        "NO_COLOR",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TZDIR",
        "TMPDIR",
        "VIRTUAL_ENV",
        "OPENSSL_CONF",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "GODEBUG",
        "GOGC",
        "GOMAXPROCS",
        "GOMEMLIMIT",
        "GOTRACEBACK",
    }
)

#: Beginnings of names: language, folders, Python and its installers, loader and allocator, the core, this project. None for the
#: gRPC library: a polling strategy that it does not know ends its process, and what it traces are headers, the key among them.
PREFIXES: Final = (
    "LC_",
    "XDG_",
    "PYTHON",
    "PIP_",
    "UV_",
    "LD_",
    "MALLOC_",
    "GLIBC_",
    "XRAY_",
    "PGNODE_",
    "COVERAGE_",
)

#: Of these, what would change how each of our own processes ends, or make errors of a library's warnings.
EXCEPT: Final = frozenset({"PYTHONINSPECT", "PYTHONWARNINGS"})


#: What the gRPC library reads when it is imported.
_GRPC: Final = "GRPC_"


def drop_grpc_variables(environment: MutableMapping[str, str], settings: Collection[str]) -> list[str]:
    """Take out what would change how the gRPC library works; before it is imported.

    Args:
        environment: The environment; it is changed.
        settings: The names of this node's settings, in capitals, some of which begin likewise.

    Returns:
        The names that were taken out, sorted.
    """
    gone = sorted(name for name in environment if name.startswith(_GRPC) and name not in settings)
    for name in gone:
        del environment[name]
    return gone


def confine(environment: MutableMapping[str, str], also: Collection[str] = ()) -> list[str]:
    """Take out of an environment what children have no need of.

    Args:
        environment: The environment; it is changed.
        also: Names that stay as well.

    Returns:
        The names that were taken out, sorted.
    """
    # Proxies are named in small letters, too.
    gone = sorted(
        name
        for name in environment
        if name not in also and name.upper() not in NAMES and (name in EXCEPT or not name.startswith(PREFIXES))
    )
    for name in gone:
        del environment[name]
    return gone
