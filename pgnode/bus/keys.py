"""The catalogue of Redis keys: name, type, who writes, how long it lives and what it means.

Nothing in it has to last: Redis may be emptied, restarted or replaced at any time. Commands carry ids and may be delivered
twice.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Consumer group, and the only consumer in it.
GROUP = "supervisor"

#: A body larger than this goes by a key of its own: entries stay small, so that a group of them is read quickly.
BLOB_BYTES = 64 * 1024

#: Longer than any command may wait.
BLOB_TTL_SECONDS = 900

#: Answers that nobody fetched belong to a worker that has gone.
REPLIES_TTL_SECONDS = 120

#: A worker that said nothing for so long has gone; what was on its way through it is owed again.
WORKER_TTL_MS = 2000

#: A supervisor that said nothing for so long has gone, and its prefix is anybody's.
OWNER_TTL_MS = 15_000

#: A worker that still cannot map a snapshot says so again.
NOT_MAPPED_TTL_SECONDS = 10

#: A large snapshot that workers on other hosts asked for; each host fetches it once.
BROUGHT_TTL_SECONDS = 15

#: Where the workers of a host find what one of them fetched.
COPY_TTL_SECONDS = 60

#: A worker that fetches a large snapshot for its host, and has ended, is waited for no longer.
COPYING_TTL_MS = 3000

#: Reports of workers are forgotten with the last worker.
REPORTS_TTL_SECONDS = 60

#: Entries of the stream of log lines, each with many lines: a worker that is further behind is told what it lost.
LOG_ENTRIES_MAX = 128

#: What a supervisor left in that stream goes with it.
LOG_TTL_SECONDS = 60

#: Lines of the node's own that are kept for operators.
NODE_LOG_MAX = 500

#: Entries kept per worker, each with the answers of one group; a worker reads them at once, so this is reached only by
#: one that hangs.
REPLIES_MAX = 5_000


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What is kept under a key, or told on a channel. The table in docs/architecture.md is made of these."""

    #: After the prefix.
    name: str
    type: str
    writer: str
    lifetime: str
    meaning: str


CATALOGUE = (
    KeySpec(
        "commands",
        "stream",
        "workers",
        "entry: until it is answered",
        f"commands to the supervisor, read by the consumer group `{GROUP}`",
    ),
    KeySpec(
        "blob:<id>",
        "string",
        "workers",
        f"until it is answered, at most {BLOB_TTL_SECONDS} s",
        "body of a command that is too large for the stream",
    ),
    KeySpec(
        "replies:<worker>",
        "stream",
        "supervisor",
        f"{REPLIES_TTL_SECONDS} s after the last one",
        "answers to one worker's commands",
    ),
    KeySpec(
        "snapshot:<name>",
        "hash",
        "supervisor",
        "for good",
        "`rev`, `at_ms`, `body`: what reads are answered from; `shared`: the memory that has a large body",
    ),
    KeySpec(
        "not-mapped",
        "string",
        "workers",
        f"{NOT_MAPPED_TTL_SECONDS} s",
        "memory with a snapshot that a worker cannot map",
    ),
    KeySpec(
        "snapshot:<name>:brought:<rev>",
        "string",
        "supervisor",
        f"{BROUGHT_TTL_SECONDS} s, or until a newer one is asked for",
        "body of a large snapshot that a worker on another host asked for",
    ),
    KeySpec(
        "snapshot:<name>:copy:<host>",
        "string",
        "workers",
        f"{COPY_TTL_SECONDS} s",
        "`<rev> <memory>`: where workers on another host find a large snapshot that one of them fetched",
    ),
    KeySpec(
        "snapshot:<name>:copying:<host>",
        "string",
        "workers",
        f"{COPYING_TTL_MS} ms",
        "a worker of this host is fetching it",
    ),
    KeySpec(
        "snapshots",
        "channel",
        "supervisor",
        "--",
        "`<name> <rev> <at_ms>`, a small body in the next line: read it again",
    ),
    KeySpec(
        "log",
        "stream",
        "supervisor",
        f"while somebody watches, {LOG_ENTRIES_MAX} entries; {LOG_TTL_SECONDS} s after the last one",
        "`source`, `number`, `lines`: lines of core and node, for viewers; with `token` the last ones, for those who join",
    ),
    KeySpec(
        "log:node",
        "stream",
        "supervisor",
        f"about {NODE_LOG_MAX} lines",
        "the node's own lines, for operators who find a supervisor that does not answer",
    ),
    KeySpec(
        "activity",
        "string",
        "workers",
        "for good",
        "number of seconds in which a worker was called; only that it rises means something",
    ),
    KeySpec(
        "loan:<id>:<number>",
        "string",
        "supervisor",
        f"until it is fetched, at most {BLOB_TTL_SECONDS} s",
        "part of an answer on loan that is too large for the stream of replies",
    ),
    KeySpec(
        "owner",
        "string",
        "supervisor",
        f"{OWNER_TTL_MS} ms",
        "the node that this prefix belongs to, in an external Redis",
    ),
    KeySpec(
        "owner:rival",
        "string",
        "supervisor",
        f"{OWNER_TTL_MS} ms",
        "another node that would have the prefix, too, and was refused",
    ),
    KeySpec("worker:<worker>", "string", "workers", f"{WORKER_TTL_MS} ms", "this worker is alive"),
    KeySpec(
        "reports",
        "hash",
        "workers",
        f"{REPORTS_TTL_SECONDS} s after the last one",
        "what each worker counted and how it is, as JSON, once a second; the supervisor removes workers that are no more",
    ),
)


class Keys:
    """The keys of one node.

    Attributes:
        prefix: What keeps nodes apart that share one Redis: REDIS_PREFIX.
        base: What each key begins with.

    Args:
        base: What each key begins with: the prefix, in a cluster in braces.
    """

    def __init__(self, base: str) -> None:
        self.prefix = base.strip("{}")
        self.base = base
        self.commands = f"{base}:commands"
        self.snapshots_channel = f"{base}:snapshots"
        self.log = f"{base}:log"
        self.node_log = f"{base}:log:node"
        self.activity = f"{base}:activity"
        self.owner = f"{base}:owner"
        self.rival = f"{base}:owner:rival"
        self.reports = f"{base}:reports"
        self.not_mapped = f"{base}:not-mapped"

    def blob(self, command_id: str) -> str:
        """Return the key of a command's body that is too large for the stream."""
        return f"{self.base}:blob:{command_id}"

    def loan_part(self, loan: str, number: int) -> str:
        """Return the key of one part of an answer on loan."""
        return f"{self.base}:loan:{loan}:{number}"

    def replies(self, worker: str) -> str:
        """Return the key of the answers to one worker."""
        return f"{self.base}:replies:{worker}"

    def worker(self, worker: str) -> str:
        """Return the key by which a worker says that it is alive."""
        return f"{self.base}:worker:{worker}"

    def snapshot(self, name: str) -> str:
        """Return the key of a snapshot."""
        return f"{self.base}:snapshot:{name}"

    def brought(self, name: str, rev: int) -> str:
        """Return the key of the body of a large snapshot in one revision, for workers on other hosts."""
        return f"{self.snapshot(name)}:brought:{rev}"

    def copy(self, host: str, name: str) -> str:
        """Return the key that says where workers of a host find a large snapshot."""
        return f"{self.snapshot(name)}:copy:{host}"

    def copying(self, host: str, name: str) -> str:
        """Return the key by which a worker says that it fetches a large snapshot for its host."""
        return f"{self.snapshot(name)}:copying:{host}"

    def __repr__(self) -> str:
        return f"Keys({self.base!r})"
