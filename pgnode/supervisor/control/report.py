"""What a supervisor says of the node: as data, and as JSON, of which the other side may know less or more. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class CoreReport:
    """The core that runs, or the last one."""

    #: "embedded (…)", or "executable" and its path.
    name: str = ""
    version: str = ""
    #: 0 where none runs.
    pid: int = 0
    #: Seconds since it was started.
    up_seconds: float | None = None
    #: Number of the core run since the state folder was made.
    run: int = 0
    #: Cores that ended by themselves since the supervisor began, and those of them that hung.
    deaths: int = 0
    hangs: int = 0
    #: Why the last of these ended, or was not brought back; "" for none.
    last_end: str = ""
    last_end_seconds_ago: float | None = None
    #: Why its API did not answer the last time, "" when it did.
    api_error: str = ""
    #: What was asked for and waits for the next start of the core.
    waiting: str = ""
    #: How often each strategy was used by a start.
    starts: dict[str, int] = field(default_factory=dict)
    #: How often it was given up for a while, since it did not stay up.
    given_up: int = 0
    #: Until it is tried again; None where it is not given up now.
    next_try_seconds: float | None = None
    #: What the panel asked for last: "xray" or "wireguard".
    backend: str = "xray"

    @property
    def purpose(self) -> str:
        """For whom it runs where that is not usual, to stand behind its name: ", for WIREGUARD"."""
        return f", for {self.backend.upper()}" if self.backend != "xray" else ""


@dataclass(frozen=True, slots=True)
class UsersReport:
    """Numbers of users."""

    desired: int = 0
    #: Desired, and in step.
    applied: int = 0
    #: Removed, and still in the core.
    to_remove: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """A process that the supervisor keeps up."""

    name: str = ""
    #: 0 where it does not run.
    pid: int = 0
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class AloneReport:
    """Workers of one kind and version that ``pgnode worker`` runs on one host."""

    host: str = ""
    kind: str = ""
    version: str = ""
    #: They speak the bus's protocol; others serve nobody.
    agrees: bool = True
    count: int = 0


@dataclass(frozen=True, slots=True)
class BusReport:
    """Redis, or the embedded Valkey."""

    #: "embedded", or the address without its password.
    address: str = ""
    answer_ms: float | None = None
    #: Why it did not answer, "" when it did.
    error: str = ""


@dataclass(frozen=True, slots=True)
class PanelReport:
    """Whoever manages the node."""

    #: Seconds since a command came last over the API: a start, a stop, users, traffic taken. None: none came yet.
    last_command_seconds_ago: float | None = None
    #: The panel's keep_alive, 0 for none, and whether it has been silent for longer.
    keep_alive_seconds: int = 0
    away: bool = False


@dataclass(frozen=True, slots=True)
class WarningReport:
    """A warning of the node's log."""

    at: float = 0.0
    level: str = ""
    text: str = ""
    times: int = 1


@dataclass(frozen=True, slots=True)
class DrainReport:
    """A drain, or what is left of one."""

    draining: bool = False
    #: Since when, and until when, Unix seconds; None for no end.
    since: float | None = None
    until: float | None = None
    #: It goes on over starts by the panel.
    hold: bool = False
    #: Tags of the inbounds that are out of the core.
    away: list[str] = field(default_factory=list)
    #: A sentence for each inbound that keeps listening, with the reason.
    stays: list[str] = field(default_factory=list)
    #: Why the core has not the inbounds that it should have, "" where it has.
    error: str = ""

    def encode(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class NodeReport:
    """All of it. Every field has a default, for a supervisor of another version."""

    version: str = ""
    pid: int = 0
    up_seconds: float = 0.0
    restarts_in_place: int = 0
    #: What the supervisor is at (:class:`pgnode.supervisor.control.progress.Phase`), and what it waits for.
    phase: str = "ready"
    step: str = ""
    #: The state of the node (:class:`pgnode.bus.state.State`).
    state: str = "idle"
    #: Why it is not known what has to run, "" where it is.
    unknown: str = ""
    core: CoreReport = field(default_factory=CoreReport)
    users: UsersReport = field(default_factory=UsersReport)
    #: Users' open connections over TCP, by inbound; inbounds without a port of TCP are left out.
    connections: dict[str, int] = field(default_factory=dict)
    drain: DrainReport = field(default_factory=DrainReport)
    panel: PanelReport = field(default_factory=PanelReport)
    bus: BusReport = field(default_factory=BusReport)
    #: Why the store did not take the last commit, "" when it did.
    store_error: str = ""
    #: Why the certificate files that are there now are not served, "" where they are.
    certificate_error: str = ""
    #: Where the API listens, and its certificate.
    addresses: list[str] = field(default_factory=list)
    cert_file: str = ""
    processes: list[ProcessReport] = field(default_factory=list)
    #: How many REST workers the settings ask for; a GUNICORN_CONF may ask for others.
    rest_workers: int = 0
    #: Workers without a supervisor beside them, on all hosts.
    alone: list[AloneReport] = field(default_factory=list)
    #: How many more workers were asked for than the settings say, by kind; negative for fewer.
    added_workers: dict[str, int] = field(default_factory=dict)
    #: How often tasks of the supervisor failed and were begun again.
    task_failures: dict[str, int] = field(default_factory=dict)
    #: Log lines that were dropped, since nobody took them.
    log_lines_dropped: int = 0
    #: The level of the log that is in force, and the one of the settings; "" where it is not told.
    log_level: str = ""
    usual_log_level: str = ""
    #: The newest last.
    warnings: list[WarningReport] = field(default_factory=list)

    def encode(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return asdict(self)

    @classmethod
    def decode(cls, values: Mapping[str, Any]) -> NodeReport:
        """Read what :meth:`encode` made, perhaps of another version: what is missing or odd has its default."""
        return decode(cls, values)


_T = TypeVar("_T")


def decode(kind: type[_T], values: object) -> _T:
    """Read a dataclass of JSON, perhaps of another version.

    Args:
        kind: The dataclass; each of its fields has a default.
        values: The JSON.

    Returns:
        One of them; what is missing or odd has its default.
    """
    if not isinstance(values, Mapping):
        return kind()
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for name in hints.keys() & values.keys():
        found[name] = _value(hints[name], values[name])
    return kind(**{name: value for name, value in found.items() if value is not _ODD})


#: Stands for a value that is of another type than it should be.
_ODD = object()


def _value(hint: Any, value: object) -> Any:
    if is_dataclass(hint):
        return decode(hint, value)  # type: ignore[arg-type]
    [*kinds] = get_args(hint)
    if get_origin(hint) is list and isinstance(kinds[0], type) and is_dataclass(kinds[0]):
        return [decode(kinds[0], each) for each in value] if isinstance(value, list) else _ODD
    if hint == list[str]:
        return [str(each) for each in value] if isinstance(value, list) else _ODD
    if hint == dict[str, int]:
        return {str(key): int(number) for key, number in value.items()} if isinstance(value, dict) else _ODD
    if hint is bool or hint is str:
        return value if isinstance(value, hint) else _ODD
    if value is None:
        return None if "None" in str(hint) else _ODD
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _ODD
    return int(value) if hint is int else float(value)
