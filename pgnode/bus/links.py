"""The kinds of connections that redis-py makes for the node, and the pools that make them.

They know no repetition, ask for the server before they connect where that can change, and give up a server that has the keys no
more (:mod:`pgnode.bus.finding`). What is used here of redis-py is what its own sentinels and clusters are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from pgnode.bus.finding import Finder, cluster_finder, is_elsewhere, sentinel_finder
from pgnode.bus.tls import SharingTls
from pgnode.settings.redis_address import (
    PASSWORD_FILE,
    SENTINEL_PASSWORD,
    SENTINEL_PASSWORD_FILE,
    SENTINEL_USER,
    TAG,
    RedisAddress,
    RedisKind,
    parse,
)
from pgnode.settings.redis_files import read_password

#: A Redis that does not answer within this time is treated as away: callers get their 503 within 3 s.
SOCKET_TIMEOUT_SECONDS = 2.0

#: What the server that is asked for has to be.
_MASTER = b"master"

#: Refusals that redis-py has classes for, which take the word away that they began with.
_REFUSALS = (AskError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)


class _Link(AbstractConnection):
    """What all kinds have in common.

    Args:
        finder: Asks for the server before each connection; None: it is always the same.
        only_masters: Refuse a server that is none; whoever was asked may have been late.
    """

    def __init__(self, *, finder: Finder | None = None, only_masters: bool = False, **arguments: Any) -> None:
        self.finder = finder
        self.only_masters = only_masters
        super().__init__(**arguments)

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        if self.finder is not None and not self.is_connected:
            self.host, self.port = await self.finder.find()
        try:
            await super().connect_check_health(check_health, retry_socket_connect)
        except (RedisError, OSError):
            if self.finder is not None:
                self.finder.ask_last()
            raise

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)
        if self.only_masters:
            await self.send_command("ROLE", check_health=False)
            role = (await self.read_response())[0]
            if role != _MASTER:
                raise RedisConnectionError(f"{self.host}:{self.port} is no master, but a {role.decode()}")

    async def read_response(self, *arguments: Any, **named: Any) -> Any:
        try:
            return await super().read_response(*arguments, **named)
        except ResponseError as error:
            if not isinstance(error, _REFUSALS) and not is_elsewhere(error):
                raise
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"another server has the keys ({type(error).__name__}: {error})") from error


class TcpLink(_Link, Connection):
    """Over TCP."""


class TlsLink(_Link, SharingTls):
    """Over TLS."""


class UnixLink(_Link, UnixDomainSocketConnection):
    """Over a socket of this machine."""


#: redis-py's kinds, and what there is in place of each.
_KINDS: Mapping[type[AbstractConnection], type[TcpLink | TlsLink | UnixLink]] = {
    Connection: TcpLink,
    SSLConnection: TlsLink,
    UnixDomainSocketConnection: UnixLink,
}


class PasswordInFile(CredentialProvider):
    """Reads the password at each connection, so that it can be replaced while the node runs.

    Args:
        user: The user; None: the password alone is sent.
        path: The file.
    """

    def __init__(self, user: str | None, path: Path) -> None:
        self._user = user
        self._path = path

    def __repr__(self) -> str:
        return f"PasswordInFile({self._path})"

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the credentials.

        Returns:
            User and password, or the password alone.

        Raises:
            RedisConnectionError: The file cannot be used now.
        """
        try:
            password = read_password(self._path)
        except OSError as error:
            raise RedisConnectionError(f"no password for Redis in {self._path}: {error.strerror or error}") from None
        return (self._user, password) if self._user is not None else (password,)


def make_pool(url: str, *, timeout_seconds: float, connections: int | None = None) -> ConnectionPool:
    """Make what makes connections; none is made before the first one is needed.

    Args:
        url: REDIS_URL with what is set beside it.
        timeout_seconds: Seconds that a command has; more than it blocks.
        connections: Connections at most; None: as many as are asked for.

    Returns:
        The pool.

    Raises:
        ValueError: That is no such address.
        TypeError: A part of its query means nothing.
        AttributeError: As TypeError; redis-py is not sure.
    """
    address = parse(url)
    arguments: dict[str, Any] = {
        # Of the two protocols the one that every server speaks.
        "protocol": 2,
        # Nothing is said of the library: an ACL would have to allow that.
        "driver_info": None,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        **parse_url(address.url),
    }
    made_of = arguments.pop("connection_class", Connection)
    kind = _KINDS[made_of]
    path = address.part(PASSWORD_FILE)
    if path is not None:
        arguments["credential_provider"] = PasswordInFile(arguments.pop("username", None), Path(path))
    if address.kind is not RedisKind.SERVER:
        asking = {**arguments, "socket_timeout": SOCKET_TIMEOUT_SECONDS}
        plain = SharingTls if kind is TlsLink else Connection
        for name in ("host", "port"):
            del asking[name]
        if address.kind is RedisKind.SENTINEL:
            arguments["finder"] = sentinel_finder(address.hosts, address.master, plain, _of_sentinels(asking, address))
            arguments["only_masters"] = True
        else:
            arguments["finder"] = cluster_finder(address.hosts, f"{{{address.part(TAG)}}}", plain, asking)
    if connections is not None:
        arguments["max_connections"] = connections
    return ConnectionPool(connection_class=kind, **arguments)


def _of_sentinels(arguments: dict[str, Any], address: RedisAddress) -> dict[str, Any]:
    """Return what a connection to a sentinel takes: it has no databases, and credentials of its own or none."""
    kept = {
        name: value
        for name, value in arguments.items()
        if name not in ("db", "username", "password", "credential_provider")
    }
    user, path = address.part(SENTINEL_USER), address.part(SENTINEL_PASSWORD_FILE)
    if path is not None:
        return {**kept, "credential_provider": PasswordInFile(user, Path(path))}
    return {**kept, "username": user, "password": address.part(SENTINEL_PASSWORD)}
