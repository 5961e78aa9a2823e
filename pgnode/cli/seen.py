"""What can be found out about a node from outside, as data. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from pgnode.store.state import StoreSummary
from pgnode.supervisor.control.report import NodeReport


@dataclass(frozen=True, slots=True)
class SeenCore:
    """A core that runs, as its record and the system say."""

    pid: int
    kind: str
    up_seconds: float


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """An API worker, as the system says."""

    kind: str
    pid: int
    up_seconds: float
    memory_bytes: int
    cpu_seconds: float
    open_files: int | None


@dataclass(frozen=True, slots=True)
class SeenStore:
    """The file of the store."""

    path: str
    size_bytes: int = 0
    #: When it was written last, Unix seconds; 0 where it is not there.
    written_at: float = 0.0
    #: What it holds; None where no node has run with it.
    held: StoreSummary | None = None
    #: Why it cannot be read, "" where it can.
    error: str = ""


@dataclass(frozen=True, slots=True)
class SeenDisk:
    """The disk of the state folder."""

    total_bytes: int
    free_bytes: int
    #: None where the file system has no limit of files.
    free_files: int | None


@dataclass(frozen=True, slots=True)
class SeenCertificate:
    """The certificate of the API."""

    path: str
    #: When it ends, Unix seconds; 0 where that is not known.
    until: float = 0.0
    names: list[str] = field(default_factory=list)
    self_signed: bool = False
    #: Why it cannot be read, "" where it can.
    error: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it, as of now."""

    #: Now, Unix seconds.
    at: float
    state_dir: str
    #: Why this node is shown, where nobody named it.
    why: str
    #: The supervisor; 0 where none runs.
    pid: int
    #: What it says; None where it does not answer.
    report: NodeReport | None
    #: Why it does not answer, "" where it does, or does not run.
    silence: str
    #: Whether it was stopped by a signal, or stands still otherwise.
    hangs: bool
    #: Seconds since it was started, as the system says.
    up_seconds: float
    core: SeenCore | None
    workers: list[SeenWorker]
    store: SeenStore
    disk: SeenDisk | None
    certificate: SeenCertificate
    #: Addresses of the API.
    api: list[str]

    def pids_of(self, kind: str) -> list[int]:
        """Return the workers of a kind, "rest" or "grpc"."""
        return [worker.pid for worker in self.workers if worker.kind == kind]
