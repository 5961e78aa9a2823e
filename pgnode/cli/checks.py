"""The checks of ``pgnode doctor``: each looks at one thing, and says what it found and what to do."""

from __future__ import annotations

import contextlib
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path

import psutil

from pgnode.cli.facts import seen_certificate
from pgnode.cli.findings import Finding, fail, ok, warn
from pgnode.cli.path_checks import check_disk, check_paths, check_state_dir
from pgnode.cli.seen import Facts
from pgnode.cli.target import Target
from pgnode.cli.texts import count
from pgnode.cli.verdict import CERTIFICATE_DAYS, NOT_RUNNING, not_well_around, verdict
from pgnode.errors import SettingsError
from pgnode.os_support.compiled_files import uncompiled_folders
from pgnode.os_support.surroundings import what_is_missing
from pgnode.settings import Settings, unknown_settings
from pgnode.supervisor.host.certificate import check_pair
from pgnode.supervisor.host.identity import machine_addresses
from pgnode.supervisor.processes.ports import what_to_do

#: Open files below which a process of the node may be short of connections.
FILES_MIN = 65_536

#: Seconds by which a file may be newer than now.
CLOCK_SECONDS = 120.0

#: Seconds that a connection to the API may take.
CONNECT_SECONDS = 2.0

_DAY = 86_400.0

#: Kinds of workers as they are written.
_KINDS = {"rest": "REST", "grpc": "gRPC"}

_RENEW_OWN = "pgnode cert renew; panels pin it, so give them the new one"

#: What to do where the log says more.
_SEE_LOG = "see the log: pgnode logs --level warning"


def check_all(target: Target, facts: Facts) -> Iterator[Finding]:
    """Do all checks that need no Redis.

    Args:
        target: The node.
        facts: What was found out about it.

    Yields:
        What was found.
    """
    settings = target.settings
    yield check_surroundings()
    yield from check_compiled()
    yield from check_settings(settings, target.env_file)
    yield from check_node(facts)
    yield from check_state_dir(settings)
    yield from check_paths(settings)
    yield from check_ports(settings, facts.pid)
    yield from check_certificate(settings, facts.at, facts.pid)
    yield from check_clock(settings, facts.at)
    yield from check_disk(settings)
    yield from check_open_files(facts)
    yield from check_port_range(listening_ports(facts))


def check_surroundings(missing: Callable[[], str | None] = what_is_missing) -> Finding:
    """Look at what the node cannot do without."""
    found = missing()
    if found is not None:
        return fail(found)
    libc = " ".join(platform.libc_ver()) or "unknown C library"
    return ok(f"Python {platform.python_version()}, {libc}, {platform.machine()}, Linux {platform.release()}")


def check_compiled(missing: Callable[[], Sequence[Path]] = uncompiled_folders) -> Iterator[Finding]:
    """Look whether Python has compiled files of what the node loads; nothing is said where it has.

    Args:
        missing: Returns the folders in which there are none.

    Yields:
        What was found.
    """
    for folder in missing():
        yield warn(
            f"there are no compiled files of Python for {folder}: each process compiles what it loads from there, at each start, "
            "and takes more memory",
            f"{sys.executable} -m compileall -q {folder}, as a user who may write there",
        )


def check_settings(settings: Settings, env_file: Path | None = None) -> Iterator[Finding]:
    """Look for names that mean nothing. The values were checked when they were read.

    Args:
        settings: What was read.
        env_file: The file of settings by which the node was found; None for none.

    Yields:
        What was found.
    """
    changed = [name for name, value in settings.model_dump().items() if value != _default(name)]
    yield ok(f"settings: {len(changed)} set, all allowed")
    for sentence in unknown_settings(env_file):
        yield warn(sentence, "correct the name, or remove it")


def _default(name: str) -> object:
    return Settings.model_fields[name].get_default(call_default_factory=True, validated_data={})


def check_node(facts: Facts) -> Iterator[Finding]:
    """Say how the node is, and what is not well."""
    judged = verdict(facts)
    if judged.exit_code == NOT_RUNNING:
        yield warn(f"the node with {facts.state_dir} is down", "start it: systemctl start pgnode, or pgnode run")
    # Of its files and its disk other checks say more, with what to do.
    around = {*not_well_around(facts)}
    reasons = [reason for reason in judged.because if reason not in around]
    if judged.exit_code != NOT_RUNNING and not reasons:
        yield ok(f"the node is {judged.word} (pid {facts.pid})")
    for reason in reasons:
        yield fail(reason, _SEE_LOG if judged.exit_code != NOT_RUNNING else "start the node")
    report = facts.report
    if report is not None:
        if report.core.waiting:
            yield warn(
                f"waits for the next start of the core: {report.core.waiting}",
                "pgnode restart --core, which drops users",
            )
        if report.users.rejected:
            rejected = count(report.users.rejected, "user")
            verb = "is" if report.users.rejected == 1 else "are"
            yield warn(f"{rejected} {verb} rejected", "pgnode users --failed says why")


def check_ports(settings: Settings, pid: int) -> Iterator[Finding]:
    """Find out whether the node's ports take connections, or could be had.

    Args:
        settings: The ports.
        pid: The supervisor; 0 where no node runs.

    Yields:
        What was found.
    """
    if not pid:
        yield from check_free_ports(settings.ports)
        return
    for name, (host, port) in settings.ports.items():
        what = f"{name}={port}"
        if name == "METRICS_PORT" and (served := _ports_of(pid)) is not None and port not in served:
            # A node goes on without it.
            error = _bind_error(host, port)
            todo = what_to_do(error, name) if error is not None else _SEE_LOG
            yield fail(f"{what} is not served: {error.strerror if error else 'nobody listens there'}", todo)
            continue
        text = _connect_error((host,) if name == "METRICS_PORT" else settings.local_hosts, port)
        yield ok(f"{what} takes connections") if not text else fail(f"{what} takes no connections: {text}", _SEE_LOG)


def check_free_ports(ports: Mapping[str, tuple[str, int]], held: Set[int] = frozenset()) -> Iterator[Finding]:
    """Find out whether a start could have these ports.

    Args:
        ports: Address and port by the setting that names the port.
        held: Those that the running node has.

    Yields:
        What was found.
    """
    for name, (host, port) in ports.items():
        what = f"{name}={port}"
        if port in held:
            yield ok(f"{what} is the running node's")
            continue
        error = _bind_error(host, port)
        if error is None:
            yield ok(f"{what} is free")
        else:
            yield fail(f"{what} on {host}: {error.strerror or error}", what_to_do(error, name))


def _connect_error(hosts: tuple[str, ...], port: int) -> str:
    error = ""
    for host in hosts:
        try:
            socket.create_connection((host, port), CONNECT_SECONDS).close()
        except OSError as failed:
            error = failed.strerror or str(failed)
        else:
            return ""
    return error


def _bind_error(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error
    return None


def check_certificate(settings: Settings, at: float, pid: int = 0) -> Iterator[Finding]:
    """Look whether the certificate can be served, until when it is good, and which addresses it lacks.

    Args:
        settings: Where it is.
        at: Now, Unix seconds.
        pid: The supervisor; 0 where no node runs.

    Yields:
        What was found.
    """
    own = settings.ssl_cert_file is None
    if own and not settings.cert_file.exists():
        if pid:
            yield fail(f"{settings.cert_file} is gone; workers serve the one that they have", _RENEW_OWN)
            return
        yield warn("there is no certificate yet", "it is made at the first start")
        return
    try:
        _, ends = check_pair(settings)
    except SettingsError as error:
        yield fail(str(error))
        return
    left_days = (ends.timestamp() - at) / _DAY
    renew = _RENEW_OWN if own else "renew it"
    if left_days < 0:
        yield fail(f"the certificate expired on {ends:%Y-%m-%d}", renew)
    elif left_days < CERTIFICATE_DAYS:
        yield warn(f"the certificate ends on {ends:%Y-%m-%d}", renew)
    else:
        yield ok(f"certificate and key fit, until {ends:%Y-%m-%d}")
    names = seen_certificate(settings.cert_file).names
    wanted = (*filter(None, settings.cert_names.split(",")), *machine_addresses(settings))
    missing = [name for name in wanted if name not in names]
    if missing and own:
        yield warn(f"the certificate lacks {', '.join(missing[:4])}, which a panel may use", renew)


def check_clock(settings: Settings, at: float) -> Iterator[Finding]:
    """Look whether the node's files are of the future.

    Args:
        settings: Where they are.
        at: Now, Unix seconds.

    Yields:
        What was found.
    """
    newest = 0.0
    for path in (settings.store_path, settings.cert_file, settings.run_dir):
        with contextlib.suppress(OSError):
            newest = max(newest, path.stat().st_mtime)
    if newest - at > CLOCK_SECONDS:
        yield fail(
            f"the clock is behind: files of the node are {newest - at:,.0f} s in the future",
            "set the clock (timedatectl)",
        )
    else:
        yield ok(f"the clock says {time.strftime('%Y-%m-%d %H:%M:%S %Z', time.localtime(at))}")


def check_open_files(facts: Facts, proc: Path = Path("/proc")) -> Iterator[Finding]:
    """Look how many files the processes of a running node may open.

    Args:
        facts: Its processes.
        proc: Where the system shows them.

    Yields:
        What was found.
    """
    pids = {f"{_KINDS.get(worker.kind, worker.kind)} workers": worker.pid for worker in facts.workers}
    if facts.core is not None:
        pids["the core"] = facts.core.pid
    found = {name: limit for name, pid in pids.items() if (limit := _files_limit(proc / str(pid))) is not None}
    few = [name for name, limit in found.items() if limit < FILES_MIN]
    if few:
        yield warn(
            f"{', '.join(few)}: {min(found.values()):,} open files at most, and about so many connections",
            "LimitNOFILE=1048576 in the unit, nofile of a container's ulimits, or as root: ulimit -n 1048576 before pgnode run",
        )
    if found and not few:
        yield ok(f"open files: {min(found.values()):,} and more")


def _files_limit(process: Path) -> int | None:
    """Return how many files a process may open; None where that is not known, or where there is no limit."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (process / "limits").read_text(encoding="ascii").splitlines():
            if line.startswith("Max open files"):
                return int(line.split()[3])
    return None


def listening_ports(facts: Facts) -> Mapping[int, str]:
    """Return the ports that the node's core listens on, and whose they are."""
    if facts.core is None:
        return {}
    return dict.fromkeys(_ports_of(facts.core.pid) or (), "an inbound of the core")


def _ports_of(pid: int) -> Set[int] | None:
    """Return the ports that a process listens on; None where that cannot be seen."""
    try:
        connections = psutil.Process(pid).net_connections("inet")
    except (psutil.Error, OSError):
        return None
    return {c.laddr.port for c in connections if c.laddr and not c.raddr}


def check_port_range(ports: Mapping[int, str], folder: Path = Path("/proc/sys/net/ipv4")) -> Iterator[Finding]:
    """Look for ports that the system also gives to outgoing connections, of which a node makes ten thousands.

    Args:
        ports: Ports, and whose they are.
        folder: Where the system says which ones it gives.

    Yields:
        What was found.
    """
    try:
        first, last = map(int, (folder / "ip_local_port_range").read_text(encoding="ascii").split())
        reserved = _ranges((folder / "ip_local_reserved_ports").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    wrong = {
        port: whose
        for port, whose in sorted(ports.items())
        if first <= port <= last and not any(low <= port <= high for low, high in reserved)
    }
    for port, whose in wrong.items():
        yield warn(
            f"{whose} listens on {port}, which Linux also gives to outgoing connections ({first}-{last})",
            f"sysctl net.ipv4.ip_local_reserved_ports={','.join(map(str, wrong))}",
        )
    if ports and not wrong:
        yield ok(f"no inbound is in the range of outgoing connections ({first}-{last})")


def _ranges(text: str) -> list[tuple[int, int]]:
    parts = [part.partition("-") for part in text.strip().split(",") if part]
    return [(int(low), int(high or low)) for low, _, high in parts]
