"""What a node may have to do in Redis, and the rules of an ACL that allow just that. Pure.

Each command has a try that changes nothing that is anybody's: a node tries all of them at its start, and names what is missing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: Seconds after which what a try made is gone, where it could not be removed.
TRY_SECONDS: Final = 10


class Role(enum.StrEnum):
    """Who has a user in Redis."""

    SUPERVISOR = "supervisor"  # and the operator's commands, which have its settings
    WORKER = "worker"  # API workers on other hosts


@dataclass(frozen=True, slots=True)
class Need:
    """A command that is needed."""

    #: As a rule names it, after the ``+``.
    rule: str
    #: A try; ``{s}``, ``{n}``, ``{h}`` and ``{x}`` are keys for a string, a number, a hash and a stream, ``{c}`` is a channel.
    #: None: it cannot be tried among others.
    attempt: str | None
    #: What for.
    why: str
    #: Whether workers need it, too.
    worker: bool = False


#: In the order in which they are tried.
NEEDS: Final = (
    Need("ping", "PING", "signs of life", worker=True),
    Need("info", "INFO", "the version, and how full it is", worker=True),
    Need("time", "TIME", "the clock that waiting commands are counted on"),
    Need("select", None, "a database with a number other than 0", worker=True),
    Need("role", "ROLE", "after a failover: whether this is the master", worker=True),
    Need("exists", "EXISTS {s}", "which workers live; in a cluster: who has the keys", worker=True),
    Need("set", "SET {s} 1 EX {seconds}", "who lives; large commands and answers", worker=True),
    Need("get", "GET {s}", "the owner of the prefix, and counters", worker=True),
    Need("mget", "MGET {s}", "large commands"),
    Need("pttl", "PTTL {s}", "the owner of the prefix"),
    Need("expire", "EXPIRE {s} {seconds}", "nothing stays that nobody needs", worker=True),
    Need("getdel", "GETDEL {s}", "large answers", worker=True),
    Need("type", "TYPE {s}", "keys that somebody else wrote", worker=True),
    Need("del", "DEL {s}", "to let go of the prefix"),
    Need("incr", "INCR {n}", "that the panel calls", worker=True),
    Need("hset", "HSET {h} f v", "snapshots; reports of workers", worker=True),
    Need("hget", "HGET {h} f", "snapshots", worker=True),
    Need("hmget", "HMGET {h} f", "snapshots", worker=True),
    Need("hgetall", "HGETALL {h}", "reports of workers"),
    Need("hscan", "HSCAN {h} 0", "what version 0.5 left, at the first start"),
    Need("hdel", "HDEL {h} f", "reports of workers"),
    Need("xadd", "XADD {x} * f v", "commands, answers, log lines", worker=True),
    Need("xgroup|create", "XGROUP CREATE {x} g 0", "commands"),
    Need("xreadgroup", "XREADGROUP GROUP g c COUNT 1 STREAMS {x} >", "commands"),
    Need("xpending", "XPENDING {x} g", "commands that were not answered"),
    Need("xack", "XACK {x} g 0-1", "commands that were answered"),
    Need("xdel", "XDEL {x} 0-1", "commands that were answered"),
    Need("xtrim", "XTRIM {x} MAXLEN 0", "log lines"),
    Need("xlen", "XLEN {x}", "how many commands wait"),
    Need("xread", "XREAD COUNT 1 STREAMS {x} 0", "answers, log lines", worker=True),
    Need("xrange", "XRANGE {x} - + COUNT 1", "commands that were lost", worker=True),
    Need("xrevrange", "XREVRANGE {x} + - COUNT 1", "the newest answer, and log lines", worker=True),
    Need("publish", "PUBLISH {c} m", "that there is a new snapshot"),
    Need("subscribe", None, "that there is a new snapshot", worker=True),
    Need("multi", "MULTI", "what is done as one"),
    Need("exec", "EXEC", "what is done as one"),
    Need(
        "unlink", "UNLINK {s} {n} {h} {x}", "large commands that were answered, and what is not the node's", worker=True
    ),
)


def needs_of(role: Role) -> tuple[Need, ...]:
    """Return what a role needs.

    Args:
        role: The role.

    Returns:
        Its commands, in the order in which they are tried.
    """
    return tuple(need for need in NEEDS if need.worker or role is Role.SUPERVISOR)


def attempts(role: Role, base: str) -> list[tuple[Need, list[str]]]:
    """Return the tries of a role.

    Args:
        role: The role.
        base: What the node's keys begin with.

    Returns:
        Each command with the words of its try.
    """
    names = {kind: f"{base}:try:{kind}" for kind in "snhxc"} | {"seconds": str(TRY_SECONDS)}
    found = []
    for need in needs_of(role):
        if need.attempt is not None:
            found.append((need, [word.format(**names) for word in need.attempt.split(" ")]))
    return found


def rules(role: Role, base: str) -> str:
    """Return the rules of an ACL that allow a role what it needs, and nothing else.

    Args:
        role: The role.
        base: What the node's keys begin with.

    Returns:
        The rules, as ``ACL SETUSER`` takes them and as they stand in a file of users.
    """
    commands = " ".join(f"+{need.rule}" for need in needs_of(role))
    return f"resetkeys ~{base}:* resetchannels &{base}:* -@all {commands}"


def missing_rules(refused: Iterable[tuple[Need, str]], base: str) -> list[str]:
    """Return the rules that are missing where commands were refused.

    Args:
        refused: Commands, each with what Redis said.
        base: What the node's keys begin with.

    Returns:
        The rules, each once.
    """
    found: list[str] = []
    for need, text in refused:
        if "channel" in text:
            rule = f"&{base}:*"
        elif "key" in text:
            rule = f"~{base}:*"
        else:
            rule = f"+{need.rule}"
        if rule not in found:
            found.append(rule)
    return found
