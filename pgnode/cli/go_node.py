"""What the settings of PasarGuard's Go node mean here. Pure.

Read from its release 0.5.2: it takes values that it cannot read for its defaults, without a word. So does this, with one.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

#: "same" means the same here; "differs" is taken over in another way, or means something else; "nothing" has no meaning here.
Verdict = Literal["same", "differs", "nothing"]

#: The Go node's own defaults.
SERVICE_PORT: Final = 62050
EXECUTABLE: Final = "/usr/local/bin/xray"
ASSETS: Final = "/usr/local/share/xray"
CERTIFICATE: Final = "/var/lib/pg-node/certs/ssl_cert.pem"
PRIVATE_KEY: Final = "/var/lib/pg-node/certs/ssl_key.pem"
TAIL_SIZE: Final = 200

#: Of this node.
API_PORT: Final = 62051

_PORT_MAX: Final = 65535
_BUFFER_RANGE: Final = (100, 1_000_000)
_TAIL_MAX: Final = 1000
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
#: As its settings check an address.
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_IPV4: Final = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)
#: Variables that mean the same to every program.
_EVERYBODYS: Final = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "TZ"})

_WIREGUARD: Final = "WireGuard is served by the core here, without the kernel, and no rule of the firewall is touched"


@dataclass(frozen=True, slots=True)
class Line:
    """One variable of the Go node, and what becomes of it."""

    name: str
    verdict: Verdict
    #: Why, and what to do; "" where nothing has to be said.
    text: str = ""
    #: What is set for it here.
    settings: tuple[tuple[str, str], ...] = ()


def translate(values: Mapping[str, str], there: Callable[[str], bool]) -> list[Line]:
    """Say what becomes of the Go node's settings.

    Args:
        values: Its variables.
        there: Whether a file or folder of this path is on the machine.

    Returns:
        A line for each variable that is set, and for each that is not set and has a default that is another one here.
    """
    lines = [
        _service_port(values.get("SERVICE_PORT")),
        _protocol(values.get("SERVICE_PROTOCOL")),
        _host(values.get("NODE_HOST")),
        _key(values.get("API_KEY")),
        *_certificate(values, there),
        _executable(values.get("XRAY_EXECUTABLE_PATH"), there),
        _assets(values.get("XRAY_ASSETS_PATH"), there),
        _debug(values.get("DEBUG")),
        _generated(values.get("GENERATED_CONFIG_PATH")),
        _buffer(values.get("LOG_BUFFER_SIZE")),
        _tail(values.get("STARTUP_LOG_TAIL_SIZE")),
        *_of_wireguard(values),
    ]
    found = [line for line in lines if line is not None]
    known = {line.name for line in found}
    return found + [_other(name, value) for name, value in values.items() if name not in known]


def settings_text(lines: list[Line], source: str) -> str:
    """Write a file of settings.

    Args:
        lines: What :func:`translate` found.
        source: The file that it was made from.

    Returns:
        The file's text: a comment for each variable, and below it what is set for it.
    """
    rows = [f"# Settings of pgnode, made from {_one_line(source)}.", ""]
    for line in lines:
        rows.append(_one_line(f"# {line.name}: {HEADS[line.verdict]}{f': {line.text}' if line.text else ''}"))
        rows += [f"{name}={_quoted(value)}" for name, value in line.settings]
    return "\n".join(rows) + "\n"


#: How a verdict is printed.
HEADS: Final[Mapping[Verdict, str]] = {
    "same": "the same",
    "differs": "differs",
    "nothing": "no meaning here",
}


def as_json(lines: list[Line]) -> dict[str, Any]:
    """Return it for programs.

    Args:
        lines: What :func:`translate` found.

    Returns:
        Settings by name, and for each variable what becomes of it.
    """
    return {
        "settings": {name: value for line in lines for name, value in line.settings},
        "variables": {line.name: {"verdict": line.verdict, "text": line.text} for line in lines},
    }


# --- one variable each --------------------------------------------------------------------------------------------------


def _service_port(value: str | None) -> Line | None:
    if value is None:
        return None
    port = _integer(value)
    if port is None or not 0 < port <= _PORT_MAX:
        return Line("SERVICE_PORT", "differs", f"{value!r} is no port; it stays {SERVICE_PORT}")
    settings = (("SERVICE_PORT", str(port)),)
    if port != API_PORT:
        return Line("SERVICE_PORT", "same", "", settings)
    free = str(API_PORT + 1)
    text = f"it is the default of API_PORT, so that is {free}: name it in the panel as the node's API port"
    return Line("SERVICE_PORT", "differs", text, (*settings, ("API_PORT", free)))


def _protocol(value: str | None) -> Line:
    if value == "rest":
        return Line("SERVICE_PROTOCOL", "same", "", (("SERVICE_PROTOCOL", "rest"),))
    settings = (("SERVICE_PROTOCOL", "grpc"),)
    both = "set `both` and GRPC_PORT to serve both at once"
    if value == "grpc":
        return Line("SERVICE_PROTOCOL", "same", both, settings)
    if value is None:
        return Line(
            "SERVICE_PROTOCOL", "differs", f"it is not set, which means grpc there and `both` here; {both}", settings
        )
    return Line("SERVICE_PROTOCOL", "differs", f"{value!r} means grpc there; {both}", settings)


def _host(value: str | None) -> Line | None:
    if value is None:
        return None
    if _IPV4.fullmatch(value):
        plain = ".".join(str(int(part)) for part in value.split("."))
        return Line("NODE_HOST", "same", "", (("NODE_HOST", plain),))
    text = f"{value!r} is no IPv4 address, for which the Go node takes 127.0.0.1; here an IPv6 address (::) is possible"
    return Line("NODE_HOST", "differs", text, (("NODE_HOST", "127.0.0.1"),))


def _key(value: str | None) -> Line:
    if value is None:
        return Line("API_KEY", "differs", "it is not set: the first start makes a key and prints it, for the panel")
    try:
        key = str(uuid.UUID(value))
    except ValueError:
        text = "it is no UUID: the Go node takes a key of zeros for it; the first start makes a key and prints it, for the panel"
        return Line("API_KEY", "differs", text)
    return Line("API_KEY", "same", "", (("API_KEY", key),))


def _certificate(values: Mapping[str, str], there: Callable[[str], bool]) -> list[Line]:
    pairs = (("SSL_CERT_FILE", CERTIFICATE), ("SSL_KEY_FILE", PRIVATE_KEY))
    paths = {name: values.get(name, default) for name, default in pairs}
    if not any(name in values for name in paths) and not all(there(path) for path in paths.values()):
        text = (
            "it is not set, and the Go node's default is not on this machine: the first start makes one, for the panel"
        )
        return [Line("SSL_CERT_FILE", "differs", text)]
    lines = []
    for name, path in paths.items():
        notes = [] if name in values else ["it is not set; this is the Go node's default"]
        if not there(path):
            notes.append("there is no such file on this machine: a start is refused until there is")
        notes.append("the node's user has to be able to read it")
        lines.append(Line(name, "same", "; ".join(notes), ((name, path),)))
    return lines


def _executable(value: str | None, there: Callable[[str], bool]) -> Line:
    name = "XRAY_EXECUTABLE_PATH"
    if value is None:
        text = f"it is not set, which means {EXECUTABLE} there and the core that comes with pgnode here"
        return Line(name, "differs", text)
    if not there(value):
        return Line(name, "differs", f"{value} is not on this machine: the core that comes with pgnode is taken")
    text = "without it, the core that comes with pgnode is taken; a core that the panel's button brings is run in its place"
    return Line(name, "same", text, ((name, value),))


def _assets(value: str | None, there: Callable[[str], bool]) -> Line:
    name = "XRAY_ASSETS_PATH"
    path = ASSETS if value is None else value
    if not there(path):
        text = (
            f"{path} is not on this machine: geo files are in `assets` in STATE_DIR, where the panel's button puts them"
        )
        return Line(name, "differs", text)
    unset = "it is not set; this is the Go node's default; " if value is None else ""
    text = f"{unset}the node's user has to be able to write it, for the panel's button that updates geo files"
    return Line(name, "same", text, ((name, path),))


def _debug(value: str | None) -> Line | None:
    if value is None:
        return None
    if value not in _TRUE | _FALSE:
        return Line("DEBUG", "differs", f"{value!r} is neither true nor false; it stays false")
    text = "there it writes the config to GENERATED_CONFIG_PATH; here it logs more of the node itself"
    return Line("DEBUG", "differs", text, (("DEBUG", "true" if value in _TRUE else "false"),))


def _generated(value: str | None) -> Line | None:
    if value is None:
        return None
    text = "a copy of the core's config is written there at every start, with DEBUG or without; the node's user has to be able to"
    return Line("GENERATED_CONFIG_PATH", "differs", text, (("GENERATED_CONFIG_PATH", value),))


def _buffer(value: str | None) -> Line | None:
    if value is None:
        return None
    name, size = "LOG_BUFFER_SIZE", _integer(value)
    if size is None:
        return Line(name, "differs", f"{value!r} is no number; it stays 10000")
    low, high = _BUFFER_RANGE
    if low <= size <= high:
        return Line(name, "same", "", ((name, str(size)),))
    size = min(max(size, low), high)
    return Line(name, "differs", f"{value} is not allowed here ({low} to {high})", ((name, str(size)),))


def _tail(value: str | None) -> Line | None:
    if value is None:
        return None
    name, size = "STARTUP_LOG_TAIL_SIZE", _integer(value)
    if size is not None and 0 < size <= _TAIL_MAX:
        return Line(name, "same", "", ((name, str(size)),))
    if size is not None and size > _TAIL_MAX:
        return Line(name, "differs", f"{value} is not allowed here (1 to {_TAIL_MAX})", ((name, str(_TAIL_MAX)),))
    return Line(name, "differs", f"{value!r} means {TAIL_SIZE} there", ((name, str(TAIL_SIZE)),))


def _of_wireguard(values: Mapping[str, str]) -> list[Line]:
    texts = {
        "STATS_UPDATE_INTERVAL_SECONDS": "only WireGuard uses it there; here it is how often the core's counters are read (5)",
        "STATS_CLEANUP_INTERVAL_SECONDS": "only WireGuard uses it there",
        "PG_NODE_WG_HOST_ROUTING": _WIREGUARD,
        "PG_NODE_WG_NAT_OUTPUT_INTERFACE": _WIREGUARD,
        "PG_NODE_WG_NAT_EGRESS_ONLY": _WIREGUARD,
    }
    return [Line(name, "nothing", text) for name, text in texts.items() if name in values]


def _other(name: str, value: str) -> Line:
    if name in _EVERYBODYS:
        return Line(name, "same", "", ((name, value),))
    return Line(
        name, "nothing", "the Go node does not know it either; the core sees it only if PASS_ENVIRONMENT names it"
    )


# --- texts --------------------------------------------------------------------------------------------------------------


def _integer(value: str) -> int | None:
    return int(value) if re.fullmatch(r"[+-]?[0-9]{1,18}", value, re.ASCII) else None


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _quoted(value: str) -> str:
    """Write a value so that it is read as it is."""
    if re.fullmatch(r"[\w./:@%+,-]*", value, re.ASCII):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
