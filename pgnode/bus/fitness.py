"""Whether a Redis can be used: what is certainly wrong with it, or with its settings, becomes one sentence for the operator."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ExecAbortError, NoPermissionError, ResponseError

from pgnode.bus.access import Need, Role, attempts, missing_rules
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.finding import NotFoundError, UnknownMasterError
from pgnode.bus.keys import Keys
from pgnode.errors import SettingsError
from pgnode.settings.redis_address import RedisKind, parse, speaks_tls

#: The oldest version that knows all commands that are used.
OLDEST = (6, 2)

#: Seconds that one look at what a port speaks may take.
PROBE_SECONDS = 2.0


async def look_at(url: str, shown: str, keys: Keys, role: Role) -> None:
    """Look whether the Redis at an address can be used.

    Args:
        url: The address, with what is set beside it.
        shown: REDIS_URL as it may be shown.
        keys: The node's keys.
        role: Whose user it is.

    Raises:
        SettingsError: It certainly cannot.
        RedisError: It cannot be told yet (one of BUS_ERRORS).
        OSError: The same.
    """
    redis = connect(url, connections=2)
    try:
        await _check_kind(redis, url, shown)
        await _check_rules(redis, shown, keys, role)
    except BUS_ERRORS as error:
        sentence = certain(error, shown) or await _other_language(url, shown)
        if sentence is None:
            raise
        raise SettingsError(sentence) from None
    finally:
        with contextlib.suppress(*BUS_ERRORS):
            await redis.aclose()


def certain(error: BaseException, shown: str) -> str | None:
    """Say what is wrong where an error leaves no doubt, and waiting would not help.

    Args:
        error: What came of a try.
        shown: REDIS_URL as it may be shown.

    Returns:
        A sentence; None where it may be different in a moment.
    """
    chain = list(_chain(error))
    who, settings = f"Redis at REDIS_URL={shown}", "REDIS_USER and REDIS_PASSWORD_FILE"
    if any(isinstance(one, NotFoundError) for one in chain):
        who, settings = f"a sentinel of REDIS_URL={shown}", "REDIS_SENTINEL_USER and REDIS_SENTINEL_PASSWORD_FILE"
        if parse(shown).kind is RedisKind.CLUSTER:
            who, settings = f"a server of REDIS_URL={shown}", "REDIS_USER and REDIS_PASSWORD_FILE"
    for one in chain:
        if isinstance(one, UnknownMasterError):
            return f"{who} knows no master {parse(shown).master!r}: correct the name at the end, or have the sentinels watch it"
        if isinstance(one, ResponseError) and (sentence := _of_a_refusal(str(one), who, shown)) is not None:
            return sentence
        if isinstance(one, AuthenticationError):
            if "required" in str(one).lower():
                return f"{who} asks for a password: set {settings}"
            return f"{who} refuses user or password: correct {settings}, or what stands in the address"
        if isinstance(one, ssl.SSLCertVerificationError):
            return (
                f"{who} has a certificate that is not accepted ({one.verify_message}): set REDIS_CA_FILE to the "
                "certificate of the CA that signed it, and have it name the host as it is written there"
            )
        if isinstance(one, ssl.SSLError):
            reason = str(one.reason or one).upper()
            if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason:
                return f"{who} speaks no TLS: write redis in place of rediss, or give the port at which it does"
            if "CERTIFICATE_REQUIRED" in reason:
                return f"{who} asks for a certificate: set REDIS_CERT_FILE and REDIS_KEY_FILE"
            if "UNKNOWN_CA" in reason or "BAD_CERTIFICATE" in reason or "CERTIFICATE_EXPIRED" in reason:
                return f"{who} does not accept the certificate in REDIS_CERT_FILE ({reason.lower().replace('_', ' ')})"
    return None


def _of_a_refusal(text: str, who: str, shown: str) -> str | None:
    """Say what is wrong where a server refuses the first that it is asked: the database, or where the master is."""
    address, text = parse(shown), text.lower()
    if "db index is out of range" in text or "invalid db index" in text:
        return f"{who} has no database with the number at the end: correct it, or leave it out for the database 0"
    if address.kind is RedisKind.SENTINEL and text.startswith("unknown command") and "sentinel" in text:
        return (
            f"{who} is no sentinel: give the sentinels' port (26379 as a rule), or write redis://HOST:PORT/NUMBER where there "
            "are none"
        )
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and what it came of."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


async def _check_kind(redis: Redis, url: str, shown: str) -> None:
    """Refuse a version that is too old, and another kind than the address says. Raises SettingsError and BUS_ERRORS."""
    try:
        found = await redis.info()
    except NoPermissionError:
        # Told with the other rules that are missing.
        return
    # Valkey has another name for it.
    kind, mode = parse(url).kind, str(found.get("redis_mode") or found.get("server_mode") or "standalone")
    if mode == "sentinel":
        raise SettingsError(f"REDIS_URL={shown} is a sentinel: write redis+sentinel://HOST:PORT/NAME of the master")
    if mode == "cluster" and kind is not RedisKind.CLUSTER:
        raise SettingsError(f"REDIS_URL={shown} is a server of a cluster: write redis+cluster://HOST:PORT,HOST:PORT")
    if mode == "standalone" and kind is RedisKind.CLUSTER:
        raise SettingsError(f"REDIS_URL={shown} is no cluster: write redis://HOST:PORT/NUMBER")
    version = str(found.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        raise SettingsError(
            f"Redis at REDIS_URL={shown} is version {version}: {OLDEST[0]}.{OLDEST[1]} is the oldest that the node can use; "
            "update it, or unset REDIS_URL for a Valkey of the node's own"
        )


async def _check_rules(redis: Redis, shown: str, keys: Keys, role: Role) -> None:
    """Try every command that is needed. Raises SettingsError where an ACL refuses one, and BUS_ERRORS."""
    tries = attempts(role, keys.base)
    pipe = redis.pipeline(transaction=False)
    for _, words in tries:
        pipe.execute_command(*words)
    answers = await pipe.execute(raise_on_error=False)
    refused = [
        (need, str(answer))
        for (need, _), answer in zip(tries, answers, strict=True)
        # The second is said of an EXEC that is not allowed.
        if isinstance(answer, (NoPermissionError, ExecAbortError))
    ]
    listener = redis.pubsub()
    try:
        await listener.subscribe(f"{keys.base}:try:c")
        await listener.get_message(timeout=PROBE_SECONDS)
    except NoPermissionError as error:
        refused.append((_SUBSCRIBE, str(error)))
    finally:
        with contextlib.suppress(*BUS_ERRORS):
            await listener.aclose()  # type: ignore[no-untyped-call]
    if refused:
        _, text = refused[0]
        commands = ", ".join(dict.fromkeys(need.rule for need, _ in refused))
        raise SettingsError(
            f"Redis at REDIS_URL={shown} does not allow this node's user {commands} ({text}): add to its rules "
            f"{' '.join(missing_rules(refused, keys.base))}"
        )


_SUBSCRIBE = Need("subscribe", None, "that there is a new snapshot", worker=True)


async def _other_language(url: str, shown: str) -> str | None:
    """Say where one side speaks TLS and the other does not; such a server often only falls silent, or hangs up."""
    address = parse(url)
    place = urlsplit(address.url)
    if address.kind is not RedisKind.SERVER or place.hostname is None:
        return None
    host, port = place.hostname, place.port or 6379
    if speaks_tls(url):
        if await _speaks_plainly(host, port):
            return f"Redis at REDIS_URL={shown} speaks no TLS: write redis in place of rediss, or give the port at which it does"
        refusal = await _refusal(host, port, dict(parse_qsl(place.query)))
        return certain(refusal, shown) if refusal is not None else None
    if await _speaks_tls(host, port):
        return (
            f"Redis at REDIS_URL={shown} speaks TLS alone: write rediss in place of redis, or give the port without it"
        )
    return None


async def _speaks_plainly(host: str, port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n")
                return (await reader.readexactly(1)) in (b"+", b"-")
            except asyncio.IncompleteReadError:
                return False
            finally:
                writer.transport.abort()
    return False


async def _refusal(host: str, port: int, files: Mapping[str, str]) -> OSError | None:
    """Return how a server refuses this node's certificate; who says something to it may get to know no more than the end."""
    context = _trusting()
    with contextlib.suppress(TimeoutError):
        try:
            if "ssl_certfile" in files:
                context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"))
            async with asyncio.timeout(PROBE_SECONDS):
                reader, writer = await asyncio.open_connection(host, port, ssl=context)
                try:
                    await reader.read(1)
                finally:
                    writer.transport.abort()
        except OSError as error:
            return error
    return None


def _trusting() -> ssl.SSLContext:
    """Return what checks nothing: nothing is said to whoever answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _speaks_tls(host: str, port: int) -> bool:
    context = _trusting()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.transport.abort()
            return True
    return False
