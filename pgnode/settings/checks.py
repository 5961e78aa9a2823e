"""What a single setting may hold: a function for each kind of value (:mod:`pgnode.settings.value_types` has the types).

Each function returns the value as the node uses it, or raises ValueError with a sentence that says what is allowed.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import uuid
from pathlib import Path

from pgnode.errors import SettingsError
from pgnode.settings.redis_address import parse as parse_redis_address

#: Characters of METRICS_KEY at least.
METRICS_KEY_MIN = 16

#: Entries of ALLOWED_CALLERS at most: the kernel looks at them with each packet.
CALLERS_MAX = 256

#: Characters of a DNS name at most.
DNS_NAME_MAX = 253
_DNS_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#: A name whose last part is a number would be an address that is none.
_DNS_NAME = re.compile(rf"(\*\.)?({_DNS_LABEL}\.)*(?![0-9]+$){_DNS_LABEL}")


def check_uuid(value: str) -> str:
    """Return the UUID in ``value`` in its usual notation; refuse it where it is not a UUID."""
    try:
        return str(uuid.UUID(value.strip()))
    except ValueError:
        raise ValueError(
            "allowed is a UUID such as 123e4567-e89b-42d3-a456-426614174000; "
            "unset it and the node makes a key of its own"
        ) from None


def check_listen_address(value: str) -> str:
    """Return the IP address in ``value``, without the brackets of a URL; refuse it where it is not an IP address."""
    try:
        return str(ipaddress.ip_address(value.strip().strip("[]")))
    except ValueError:
        raise ValueError("allowed is an IPv4 or IPv6 address to listen on, such as 0.0.0.0, :: or 127.0.0.1") from None


def check_redis_url(value: str) -> str:
    """Return ``value``; refuse it where it is no address of Redis, of sentinels or of a cluster."""
    parse_redis_address(value)
    return value


def check_web_url(value: str) -> str:
    """Return ``value`` without a slash at its end; refuse it where it is not an address of the web."""
    if not value.startswith(("https://", "http://")) or any(c.isspace() for c in value):
        raise ValueError("allowed is an address that begins with https:// or http://")
    return value.rstrip("/")


def check_command(value: str) -> str:
    """Return ``value``; refuse it where it cannot be split like a shell would, or has no word in it."""
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"allowed is a command with its arguments, quoted as for a shell ({error})") from None
    if not words:
        raise ValueError("allowed is a command with its arguments; unset it if there is none")
    return value


def check_existing_folder(value: Path) -> Path:
    """Return ``value``; refuse it where it is not a folder."""
    if not value.is_dir():
        raise ValueError("allowed is the path of an existing folder")
    return value


def check_executable(value: Path) -> Path:
    """Return ``value``; refuse it where it is not a file, or may not be executed."""
    if not (value.is_file() and os.access(value, os.X_OK)):
        raise ValueError("allowed is the path of an executable file; unset it to use the embedded core")
    return value


def check_key_prefix(value: str) -> str:
    """Return ``value``; refuse it where Redis would take a part of it for a pattern, or it has blanks."""
    if not value or any(c.isspace() or c in "{}*?" for c in value):
        raise ValueError("allowed is a word without blanks, braces and wildcards")
    return value


def check_metrics_key(value: str) -> str:
    """Return ``value``; refuse it where it can be guessed, or cannot be sent in a header."""
    if len(value) < METRICS_KEY_MIN or not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError(
            f"allowed is a text of {METRICS_KEY_MIN} characters and more, letters, digits and signs, such as "
            "`openssl rand -hex 16` prints; unset it and the API key alone opens metrics"
        )
    return value


def check_names(value: str) -> str:
    """Return the names in ``value``, separated by commas; refuse it where one cannot be a variable's."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if not name.isascii() or not name.isidentifier():
            raise ValueError(f"allowed are names of variables, separated by commas, and {name!r} is none")
    return ",".join(names)


def check_cert_names(value: str) -> str:
    """Return the names and addresses in ``value``, separated by commas; refuse it where a certificate cannot name one."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if not is_cert_name(name):
            raise ValueError(f"allowed are names and addresses, separated by commas, and {name!r} is none")
    return ",".join(_usual_form(name) for name in names)


def check_dns_servers(value: str) -> str:
    """Return the addresses in ``value``, separated by commas; refuse it where one is no IP address."""
    servers = [server.strip() for server in value.split(",") if server.strip()]
    for server in servers:
        try:
            ipaddress.ip_address(server.replace("%", " "))
        except ValueError:
            raise ValueError(
                f"allowed are addresses of DNS servers, separated by commas, such as 9.9.9.9, and {server!r} is none"
            ) from None
    return ",".join(servers)


def check_callers(value: str) -> str:
    """Return the addresses and networks in ``value``, separated by commas; refuse it where one is none."""
    entries = [entry.strip().replace("[", "").replace("]", "") for entry in value.split(",") if entry.strip()]
    if len(entries) > CALLERS_MAX:
        raise ValueError(f"allowed are {CALLERS_MAX} addresses and networks at most, and these are {len(entries)}")
    return ",".join(str(_network(entry)) for entry in entries)


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(entry.replace("%", " "), strict=False)
    except ValueError:
        raise ValueError(
            "allowed are addresses and networks, separated by commas, such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32, "
            f"and {entry!r} is none"
        ) from None
    if str(network.network_address) != str(ipaddress.ip_address(entry.partition("/")[0])):
        raise ValueError(f"{entry} is an address in a network: allowed is {network}, or the address alone")
    return network


def is_cert_name(name: str) -> bool:
    """Whether a certificate can name this: an address, or a DNS name, also one that begins with ``*.``."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return len(name) <= DNS_NAME_MAX and _DNS_NAME.fullmatch(name) is not None
    return "%" not in name


def _usual_form(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def paths_in(text: str) -> tuple[Path, ...]:
    """Return the paths in a list with commas."""
    return tuple(Path(path.strip()) for path in text.split(",") if path.strip())


def default_state_dir() -> Path:
    """Return ``$XDG_STATE_HOME/pgnode``, else ``~/.local/state/pgnode``."""
    base = os.environ.get("XDG_STATE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".local" / "state") / "pgnode"
    except RuntimeError:
        raise SettingsError("STATE_DIR is not set, and this user has no home folder: set STATE_DIR") from None
