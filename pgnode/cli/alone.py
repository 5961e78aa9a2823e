"""``pgnode worker``: API workers without a supervisor beside them, on its host or on another one."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pgnode import dependencies
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import SUPERVISOR
from pgnode.cli.checks import check_free_ports, check_settings, check_surroundings
from pgnode.cli.doctor import REDIS_SECONDS, check_redis
from pgnode.cli.findings import Finding, fail, finding_rows, findings_json, ok, summary
from pgnode.cli.output import say
from pgnode.cli.rows import Tone
from pgnode.cli.screen import Screen
from pgnode.cli.target import Places, service_file
from pgnode.errors import ArgumentError, OperatorError, SettingsError
from pgnode.os_support import streams
from pgnode.os_support.environment import confine, drop_grpc_variables
from pgnode.os_support.limits import allow_many_files
from pgnode.os_support.log_output import PROCESS
from pgnode.os_support.surroundings import MEMORY, find_temporary_folder, reset_signals, what_is_missing
from pgnode.settings import Settings, other_variables, read_api_key, shown_url, unknown_settings
from pgnode.settings.alone import WorkerKind, load_alone
from pgnode.settings.handover import (
    ALONE_VARIABLE,
    ENVIRONMENT_VARIABLE,
    FILE_VARIABLE,
    SOCKETS_VARIABLE,
    VARIABLE,
    Handover,
    hand_over,
    hand_over_environment,
)
from pgnode.supervisor.grpc_alone import GrpcAlone
from pgnode.supervisor.host.certificate import check_pair
from pgnode.supervisor.host.logging import begin_logging, first_level, told_in_log
from pgnode.supervisor.host.service_manager import ServiceManager
from pgnode.supervisor.processes.gunicorn import COMMAND
from pgnode.supervisor.processes.ports import ListeningSockets

#: Names the socket of the service manager.
NOTIFY_VARIABLE = "NOTIFY_SOCKET"

#: The exit code where something is missing: the settings are wrong.
WRONG = SettingsError.exit_code


@dataclass(frozen=True, slots=True)
class Started:
    """What workers are started with."""

    settings: Settings
    handover: Handover
    #: What their processes have as environment.
    environment: Mapping[str, str]
    #: The file that some of the settings are from.
    env_file: Path | None = None


def run_worker(
    kind: WorkerKind,
    env_file: Path | None,
    node: str | None,
    *,
    check: bool = False,
    json_wanted: bool = False,
    places: Places | None = None,
) -> int:
    """Serve the API for a supervisor that is met over Redis, until told to end; or say what would keep this from it.

    Args:
        kind: What is served.
        env_file: A file of settings; None for none.
        node: Stands for a file of settings in /etc/pgnode; None for none.
        check: Look at all that it needs, and start nothing.
        json_wanted: Print what was found as JSON.
        places: Where services keep what is theirs; None for where they do.

    Returns:
        The exit code.

    Raises:
        OperatorError: It cannot run as it is set up.
    """
    streams.make_safe()
    reset_signals()
    if node is not None:
        if env_file is not None:
            raise ArgumentError("--node names a file of settings, and so does --env-file: give one of them")
        env_file = service_file(node, places if places is not None else Places())
    env_file = env_file.absolute() if env_file is not None else None
    missing = what_is_missing()
    if missing is not None and not check:
        raise OperatorError(missing)
    settings = load_alone(kind, env_file)
    if check:
        return show_check(settings, env_file, json_wanted=json_wanted)
    started = prepare(kind, settings, env_file)
    return serve_grpc(started) if kind == "grpc" else become_gunicorn(started)


def prepare(kind: WorkerKind, settings: Settings, env_file: Path | None) -> Started:
    """Check all that workers need, and put together what they are started with.

    Args:
        kind: What they serve.
        settings: Their settings.
        env_file: The file that some of them are from; None for none.

    Returns:
        What they are started with.

    Raises:
        OperatorError: Something is missing; the text says what to do.
    """
    if env_file is not None:
        os.environ.update(other_variables(env_file))
    missing = find_temporary_folder(os.environ, (MEMORY,))
    if missing is not None:
        raise OperatorError(missing)
    known = {name.upper() for name in Settings.model_fields}
    before = dict(os.environ)
    dropped = drop_grpc_variables(os.environ, known)
    begin_logging(settings, os.environ)
    PROCESS.name_process("worker")
    for sentence in [
        *unknown_settings(env_file),
        *(f"{name} has no effect: it is for the gRPC library" for name in dropped),
    ]:
        if not told_in_log("warning", sentence):
            say(f"pgnode: {sentence}", error=True)
    dependencies.check()
    require_certificate(settings)
    key = asyncio.run(require_key(settings))
    sentence = f"{places(kind, settings)}, for the supervisor at REDIS_URL={shown_url(settings.redis_url or '')}; {key}"
    if not told_in_log("info", sentence):
        say(f"pgnode: {sentence}", error=True)
    allow_many_files()
    os.umask(0o077)
    environment = {**os.environ}
    confine(environment, settings.child_variables)
    folder = Path(tempfile.gettempdir())
    handover = hand_over(settings, folder)
    described = hand_over_environment(before, folder)
    for number in (handover.descriptor, described):
        os.set_inheritable(number, True)
    environment |= {
        VARIABLE: str(handover.descriptor),
        ENVIRONMENT_VARIABLE: str(described),
        ALONE_VARIABLE: kind,
        # They print by themselves, as a node does.
        "LOG_FORMAT": settings.log_format,
        "LOG_LEVEL": first_level(settings),
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }
    if env_file is not None:
        environment[FILE_VARIABLE] = str(env_file)
    if kind == "rest" and NOTIFY_VARIABLE in before:
        # Gunicorn says itself when it is ready.
        environment[NOTIFY_VARIABLE] = before[NOTIFY_VARIABLE]
    return Started(settings, handover, environment, env_file)


def places(kind: WorkerKind, settings: Settings) -> str:
    """Say what is served where. Pure.

    Args:
        kind: What workers serve.
        settings: Their settings.

    Returns:
        The beginning of a sentence.
    """
    host = f"[{settings.node_host}]" if ":" in settings.node_host else settings.node_host
    if kind == "grpc":
        return f"API workers serve gRPC on {host}:{settings.grpc_listen[1]}"
    ports = settings.gunicorn_ports
    rest = f"REST on https://{host}:{ports['SERVICE_PORT']} and " if "SERVICE_PORT" in ports else ""
    return f"API workers serve {rest}maintenance on https://{host}:{ports['API_PORT']}"


def become_gunicorn(started: Started) -> NoReturn:
    """Become Gunicorn's master, with the sockets that it listens on.

    Args:
        started: What it is started with.

    Raises:
        PortInUseError: Somebody else listens on one of its ports.
    """
    sockets = ListeningSockets(started.settings)
    sockets.open()
    try:
        for number in sockets.descriptors:
            os.set_inheritable(number, True)
        numbers = ",".join(map(str, sockets.descriptors))
        streams.drain()
        os.execve(sys.executable, list(COMMAND), {**started.environment, SOCKETS_VARIABLE: numbers})  # noqa: S606
    finally:
        sockets.close()


def serve_grpc(started: Started) -> int:
    """Keep gRPC workers up, in processes of their own, until told to end.

    Args:
        started: What they are started with.

    Returns:
        The exit code.

    Raises:
        PortInUseError: Somebody else has the port.
        ChildFailedError: No worker comes up.
    """
    before = dict(os.environ)
    manager = ServiceManager.take(before)
    os.environ.clear()
    os.environ.update(started.environment)
    PROCESS.show_from(first_level(started.settings))

    def again() -> Settings:
        os.environ.update(before)
        try:
            return load_alone("grpc", started.env_file)
        finally:
            os.environ.clear()
            os.environ.update(started.environment)

    return asyncio.run(GrpcAlone(started.settings, started.handover, again, manager).run())


def require_certificate(settings: Settings) -> None:
    """Make sure that there is a certificate that can be served.

    Args:
        settings: Where it is.

    Raises:
        SettingsError: There is none, or it cannot be used.
    """
    if settings.ssl_cert_file is None and not settings.cert_file.exists():
        raise SettingsError(
            f"there is no certificate: set SSL_CERT_FILE and SSL_KEY_FILE, or put cert.pem and key.pem into "
            f"{settings.cert_file.parent}; a panel pins one certificate, so all workers of a node need the same (the node's own "
            "is in STATE_DIR/tls of its supervisor)"
        )
    check_pair(settings)


async def require_key(settings: Settings, *, redis_seconds: float = REDIS_SECONDS) -> str:
    """Make sure that there is a key, or that the supervisor tells of it.

    Args:
        settings: Where it is.
        redis_seconds: Seconds that Redis has to answer.

    Returns:
        Where it is from, in words.

    Raises:
        SettingsError: There is none, or it cannot be used.
    """
    if settings.api_key is not None or settings.key_file.exists():
        read_api_key(settings)
        return "there is an API key"
    why = "no supervisor has told of its own there"
    redis = connect(settings.bus_url, connections=1)
    try:
        async with asyncio.timeout(redis_seconds):
            if await redis.hget(Keys(settings.bus_prefix).snapshot(SUPERVISOR), "rev"):
                return "the API key is the one that the supervisor tells of"
    except BUS_ERRORS as error:
        why = f"Redis does not say whether a supervisor has told of its own ({error})"
    finally:
        await redis.aclose()
    raise SettingsError(
        f"there is no API key: set API_KEY, or API_KEY_FILE, or put the supervisor's into {settings.key_file} (`pgnode key show` "
        f"prints it there), or start the supervisor with this REDIS_URL and REDIS_PREFIX: {why}"
    )


def show_check(
    settings: Settings, env_file: Path | None, *, json_wanted: bool, redis_seconds: float = REDIS_SECONDS
) -> int:
    """Print what workers would find.

    Args:
        settings: Their settings.
        env_file: The file that some of them are from.
        json_wanted: Print JSON.
        redis_seconds: Seconds that Redis has to answer.

    Returns:
        0 where a start would succeed, else 2.
    """
    findings = [*check_worker(settings, env_file), asyncio.run(check_key(settings, redis_seconds))]
    findings += asyncio.run(check_redis(settings.bus_url, redis_seconds))
    text, failed = summary(findings)
    screen = Screen()
    if json_wanted:
        screen.json({"well": not failed, "findings": findings_json(findings)})
    else:
        screen.rows(finding_rows(findings))
        screen.line(text, Tone.BAD if failed else Tone.GOOD)
    return WRONG if failed else 0


def check_worker(settings: Settings, env_file: Path | None) -> Iterator[Finding]:
    """Look at all that workers need and that can be known without them.

    Args:
        settings: Their settings.
        env_file: The file that some of them are from.

    Yields:
        What was found.
    """
    yield check_surroundings()
    yield from check_settings(settings, env_file)
    # Metrics are the supervisor's.
    yield from check_free_ports({name: where for name, where in settings.ports.items() if name != "METRICS_PORT"})
    try:
        require_certificate(settings)
    except SettingsError as error:
        yield fail(str(error))
    else:
        yield ok("certificate and key fit")


async def check_key(settings: Settings, redis_seconds: float) -> Finding:
    """Look whether there is a key, or one that the supervisor tells of."""
    try:
        return ok(await require_key(settings, redis_seconds=redis_seconds))
    except SettingsError as error:
        return fail(str(error))
