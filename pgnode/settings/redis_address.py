"""The address of Redis: which kinds there are, and how all that is needed to connect fits into one text. Pure.

An operator writes REDIS_URL, and beside it settings for what does not belong into an address: files, passwords. The node's parts
hand one text around, REDIS_URL with those settings in its query (:func:`complete`), and whoever connects takes it apart.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

#: What is written before ``://``, and what is meant.
ALLOWED: Final = (
    "allowed is redis://HOST:PORT/NUMBER, redis+sentinel://HOST:PORT,HOST:PORT/NAME or redis+cluster://HOST:PORT,HOST:PORT, "
    "each with rediss in place of redis for TLS, and USER:PASSWORD@ before the first HOST where Redis asks for it; "
    "or unix:///PATH"
)

#: Parts of the query that the library does not know.
PASSWORD_FILE: Final = "password_file"  # noqa: S105 - a name
SENTINEL_USER: Final = "sentinel_username"
SENTINEL_PASSWORD: Final = "sentinel_password"  # noqa: S105 - a name
SENTINEL_PASSWORD_FILE: Final = "sentinel_password_file"  # noqa: S105 - a name
#: What is in the braces of a node's keys in a cluster.
TAG: Final = "tag"
_OWN = frozenset({PASSWORD_FILE, TAG, SENTINEL_USER, SENTINEL_PASSWORD, SENTINEL_PASSWORD_FILE})

#: Parts of the query that nobody may see.
SECRET_PARTS: Final = frozenset({"password", SENTINEL_PASSWORD, "ssl_password"})

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\[\]:@/\s]+)(:(?P<port>[0-9]{1,5}))?")


class RedisKind(enum.StrEnum):
    """How the server is found that has the node's keys."""

    SERVER = "server"  # it is the one in the address
    SENTINEL = "sentinel"  # those in the address know it
    CLUSTER = "cluster"  # whoever of the cluster is asked names it


_DEFAULT_PORTS = {RedisKind.SERVER: 6379, RedisKind.SENTINEL: 26379, RedisKind.CLUSTER: 6379}

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """An address, taken apart."""

    kind: RedisKind
    #: That of one server, as the library reads it; of a sentinel or a cluster with the first host's name and port.
    url: str
    #: Who is asked for the server; empty where it is the one in ``url``.
    hosts: tuple[Host, ...] = ()
    #: What sentinels call the master.
    master: str = ""
    #: What the library does not know, by the names of the query.
    own: Mapping[str, str] | None = None

    def part(self, name: str) -> str | None:
        """Return a part of the query that the library does not know; None where there is none."""
        return (self.own or {}).get(name)


def parse(url: str) -> RedisAddress:
    """Take an address apart.

    Args:
        url: REDIS_URL, or what :func:`complete` made of it.

    Returns:
        Its parts.

    Raises:
        ValueError: It is none; the text says what is allowed, and holds nothing of it.
    """
    scheme, separator, rest = url.partition("://")
    base, plus, kind_name = scheme.partition("+")
    if not separator or base not in ("redis", "rediss", "unix") or (plus and kind_name not in ("sentinel", "cluster")):
        raise ValueError(ALLOWED)
    query = rest.partition("?")[2]
    pairs = parse_qsl(query, keep_blank_values=True)
    own = {name: value for name, value in pairs if name in _OWN}
    others = [(name, value) for name, value in pairs if name not in _OWN]
    before = rest.partition("?")[0]
    if not plus:
        if base != "unix" and not _is_number(before.partition("/")[2].strip("/")):
            # The library would take the database 0, or the digits that it finds.
            raise ValueError(ALLOWED)
        plain = f"{scheme}://{rest}" if not own else _with_query(f"{scheme}://{before}", others)
        return RedisAddress(RedisKind.SERVER, plain, own=own)
    if base == "unix":
        raise ValueError(ALLOWED)
    kind = RedisKind(kind_name)
    place, _, path = before.partition("/")
    user, at, names = place.rpartition("@")
    hosts = tuple(_host(name, _DEFAULT_PORTS[kind]) for name in names.split(","))
    master, _, number = path.strip("/").partition("/") if kind is RedisKind.SENTINEL else ("", "", path.strip("/"))
    if kind is RedisKind.SENTINEL and not master:
        raise ValueError("the name of the master is missing that the sentinels watch: …HOST:PORT/NAME")
    if not _is_number(number):
        raise ValueError(ALLOWED)
    if kind is RedisKind.CLUSTER and number.strip("0"):
        raise ValueError("a cluster has the database 0 alone: leave out the number at the end")
    host, port = hosts[0]
    written = f"[{host}]" if ":" in host else host
    plain = _with_query(f"{base}://{user}{at}{written}:{port}/{number or 0}", others)
    return RedisAddress(kind, plain, hosts, master, own)


def complete(url: str, parts: Mapping[str, str | None]) -> str:
    """Put settings into an address.

    Args:
        url: REDIS_URL.
        parts: What is to go into its query; what is None does not.

    Returns:
        The address that the node's parts hand around; it may hold secrets.
    """
    added = urlencode({name: value for name, value in parts.items() if value is not None})
    if not added:
        return url
    return f"{url}{'&' if '?' in url else '?'}{added}"


def has_credentials(url: str) -> bool:
    """Return whether an address names a user or a password itself."""
    return "@" in url.partition("://")[2].partition("?")[0] or any(
        name in ("username", "password") for name, _ in parse_qsl(url.partition("?")[2])
    )


def speaks_tls(url: str) -> bool:
    """Return whether TLS is meant."""
    return url.partition("://")[0].partition("+")[0] == "rediss"


def is_cluster(url: str) -> bool:
    """Return whether a cluster is meant."""
    return url.partition("://")[0].partition("+")[2] == RedisKind.CLUSTER


def _is_number(text: str) -> bool:
    """Whether a text is the number of a database, or none is given."""
    return not text or (text.isascii() and text.isdigit())


def _with_query(url: str, pairs: list[tuple[str, str]]) -> str:
    return f"{url}?{urlencode(pairs)}" if pairs else url


def _host(text: str, default_port: int) -> Host:
    found = _HOST.fullmatch(text)
    if found is None or not 0 < int(found["port"] or default_port) < 65536:
        raise ValueError(ALLOWED)
    # As a URL's parser would read it, brackets and all.
    host = urlsplit(f"//{found['host']}").hostname
    if not host:
        raise ValueError(ALLOWED)
    return host, int(found["port"] or default_port)
