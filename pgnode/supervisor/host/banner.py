"""What the operator sees when the node is up: one block with all that is needed to connect a panel."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pgnode import __version__
from pgnode.os_support.log_text import printable_lines
from pgnode.supervisor.host.identity import Identity, machine_addresses

if TYPE_CHECKING:
    from pgnode.settings import Settings

#: Columns for the names in front of the values.
NAME_WIDTH = 14


def banner(settings: Settings, who: Identity, *, core: str, version: str, users: int) -> None:
    """Print the block to stdout. The key itself is shown only when it was made just now.

    Args:
        settings: Addresses and files.
        who: The key and certificate; what is new of them is shown whole, with the other fields of a panel's form.
        core: What runs as the core.
        version: The core's version.
        users: Number of users in the store.
    """
    host = settings.local_host
    shown_host = f"[{host}]" if ":" in host else host
    rows: list[tuple[str, str]] = []
    rest = settings.gunicorn_ports.get("SERVICE_PORT")
    if rest is not None:
        rows.append(("API", f"https://{shown_host}:{rest}  (listening on {settings.node_host}, REST)"))
    if settings.grpc_worker_count:
        port = settings.grpc_listen[1]
        rows.append(("gRPC" if rest else "API", f"{shown_host}:{port}  (listening on {settings.node_host}, gRPC, TLS)"))
    if settings.gunicorn_ports:
        rows.append(("Maintenance", f"https://{shown_host}:{settings.api_port}  (JSON, with the same key)"))
    else:
        rows.append(("API", "served by the workers of `pgnode worker`, with this REDIS_URL and REDIS_PREFIX"))
    if who.key_is_new:
        rows.append(("API key", f"{who.api_key}  (new, and shown once; kept in {settings.key_file})"))
    elif settings.api_key is not None:
        rows.append(("API key", "as API_KEY says"))
    else:
        rows.append(("API key", f"kept in {settings.key_file}"))
    made = "  (self-signed, new)" if who.cert_is_new else ""
    rows.append(("Certificate", f"{settings.cert_file}{made}"))
    rows.append(("Core", f"Xray {version}, {core}; {_users(users)}"))
    store = "embedded Valkey" if settings.redis_url is None else "Redis at REDIS_URL"
    processes = ["supervisor", store]
    if settings.gunicorn_ports:
        processes.append(f"Gunicorn with {_count(settings.web_concurrency, 'REST worker')}")
    if settings.grpc_worker_count:
        processes.append(_count(settings.grpc_worker_count, "gRPC worker"))
    rows.append(("Processes", f"{', '.join(processes)}, the core when started"))
    rows.append(("State", str(settings.state_dir)))
    key = "$API_KEY" if settings.api_key is not None else f"$(cat {settings.key_file})"
    address = f"{rest}/info" if rest is not None else f"{settings.api_port}/"
    first = (
        f'curl --cacert {settings.cert_file} -H "x-api-key: {key}" -H "Accept: application/json" '
        f"https://{shown_host}:{address}"
        if settings.gunicorn_ports
        else "pgnode workers, which shows who serves"
    )
    rows.append(("Try next", first))
    rows.append(("", "or see it work without a panel: pgnode demo. Ctrl-C ends the node"))
    # Lines are left whole and without a frame, so that what is copied from them works.
    _rule(f"pgnode {__version__} is ready")
    _print(rows)
    if who.key_is_new or who.cert_is_new:
        _rule("what a panel asks for")
        print_panel_form(settings, who)
    _rule()


def ready_fields(settings: Settings, *, core: str, version: str) -> dict[str, str]:
    """Return what is told in the log in place of the block, where the log is not for people. No key is among it.

    Args:
        settings: Addresses and files.
        core: What runs as the core.
        version: The core's version.

    Returns:
        Values by name.
    """
    ports = {
        "rest": settings.gunicorn_ports.get("SERVICE_PORT"),
        "maintenance": settings.gunicorn_ports.get("API_PORT"),
    }
    if settings.grpc_worker_count:
        ports["grpc"] = settings.grpc_listen[1]
    return {
        "version": __version__,
        "listens": settings.node_host,
        **{name: str(port) for name, port in ports.items() if port is not None},
        "core": f"Xray {version}, {core}",
        "state": str(settings.state_dir),
        "key": "pgnode key show",
        "certificate": str(settings.cert_file),
    }


def print_panel_form(settings: Settings, who: Identity) -> None:
    """Print what a panel's form asks for.

    Args:
        settings: Addresses and files.
        who: The key and certificate; what is new of them is shown whole.
    """
    _print(_for_the_panel(settings, who))


def _rule(title: str = "") -> None:
    """Print a line over the whole width, with a title at its left end."""
    stroke = "─" if "utf" in (sys.stdout.encoding or "").lower() else "-"
    title = f"{title} " if title else ""
    _print_line(title + stroke * max(shutil.get_terminal_size().columns - len(title), 0))


def _print(rows: Sequence[tuple[str, str]]) -> None:
    """Print values with their names in front, bold on a terminal."""
    for name, value in rows:
        # A certificate begins at the margin.
        label = f"{name:<{NAME_WIDTH}}" if name or not value.startswith("-") else ""
        if label and sys.stdout.isatty():
            label = f"\x1b[1m{label}\x1b[0m"
        _print_line(label + printable_lines(value))


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _for_the_panel(settings: Settings, who: Identity) -> list[tuple[str, str]]:
    """Return the fields of a panel's form, and what goes into each."""
    addresses = machine_addresses(settings)
    ports = [f"{port} (REST)" for name, port in settings.gunicorn_ports.items() if name == "SERVICE_PORT"]
    if settings.grpc_worker_count:
        ports.append(f"{settings.grpc_listen[1]} (gRPC)")
    first, *others = addresses or [settings.local_host]
    note = f"  (this machine has {', '.join(others)}, too)" if others else ""
    rows = [
        ("Address", f"{first}{note}" if addresses else f"{first}  (only from this machine)"),
        ("Port", " or ".join(ports)),
        ("API port", str(settings.api_port)),
    ]
    if not settings.gunicorn_ports:
        rows = [("Address", "that of a host where `pgnode worker` serves, with the ports that are set there")]
    rows += [
        ("API key", who.api_key if who.key_is_new else f"as before, kept in {settings.key_file}"),
    ]
    if settings.api_key is not None and not who.key_is_new:
        rows[-1] = ("API key", "as API_KEY says")
    if who.cert_is_new:
        rows.append(("Certificate", "all lines of this:"))
        rows.append(("", settings.cert_file.read_text(encoding="ascii").strip()))
    else:
        rows.append(("Certificate", f"the content of {settings.cert_file}"))
    rows.append(
        (
            "",
            "Behind NAT the address is the public one; the certificate lacks it then: pgnode cert renew --name ADDRESS",
        )
    )
    return rows


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _users(users: int) -> str:
    return f"{_count(users, 'user')} in the store" if users else "waiting for a panel to start it"
