"""``pgnode doctor``: looks at the node and at what it stands on, and says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace

from redis.asyncio import Redis

from pgnode.bus.access import Role
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.fitness import look_at
from pgnode.bus.keys import Keys
from pgnode.cli.checks import check_all
from pgnode.cli.facts import find_facts
from pgnode.cli.findings import Finding, fail, finding_rows, findings_json, ok, summary, warn
from pgnode.cli.rows import Tone
from pgnode.cli.screen import Screen
from pgnode.cli.target import Named, Target, find_target, running_settings
from pgnode.errors import SettingsError
from pgnode.settings import Settings, shown_url

#: Seconds that Redis has to answer.
REDIS_SECONDS = 3.0

#: The way in which Redis may throw away what is not read yet.
_EVICTS = "allkeys"


def show_doctor(named: Named, *, json_wanted: bool = False, redis_seconds: float = REDIS_SECONDS) -> int:
    """Print what was looked at, and what to do.

    Args:
        named: What the operator said about which node is meant.
        json_wanted: Print JSON.
        redis_seconds: Seconds that an external Redis has to answer.

    Returns:
        The exit code: 0 where nothing failed, else 4.

    Raises:
        OperatorError: It cannot be told which node is meant, or it may not be looked at.
    """
    target = find_target(named)
    target = replace(target, settings=running_settings(target))
    return show_findings([*check_all(target, find_facts(target))], target, redis_seconds, json_wanted=json_wanted)


def show_findings(found: Iterable[Finding], target: Target, redis_seconds: float, *, json_wanted: bool) -> int:
    """Print what was found, and what is found of an external Redis.

    Args:
        found: What was found of the rest.
        target: The node.
        redis_seconds: Seconds that Redis has to answer.
        json_wanted: Print JSON.

    Returns:
        0 where nothing failed, else 4.
    """
    findings = [*found]
    if target.settings.redis_url is not None:
        findings += asyncio.run(check_redis(target.settings.bus_url, redis_seconds, target.settings))
    text, code = summary(findings)
    screen = Screen()
    if json_wanted:
        screen.json({"well": code == 0, "findings": findings_json(findings)})
    else:
        screen.rows(finding_rows(findings))
        screen.line(text, Tone.BAD if code else Tone.GOOD)
    return code


async def check_redis(url: str, seconds: float, settings: Settings | None = None) -> list[Finding]:
    """Look at an external Redis: whether it can be used, and whether it may evict what is not read yet.

    Args:
        url: Its address, with what is set beside it.
        seconds: Seconds that it has to answer.
        settings: Those of the node whose supervisor would use it; None: not all that it needs is looked at.

    Returns:
        What was found.
    """
    shown = shown_url((settings.redis_url if settings is not None else None) or url)
    redis = connect(url, connections=1)
    try:
        async with asyncio.timeout(seconds):
            if settings is not None:
                await look_at(url, shown, Keys(settings.bus_prefix), Role.SUPERVISOR)
            return [*_of_memory(await _memory(redis), shown)]
    except SettingsError as error:
        what, _, do = str(error).rpartition(": ")
        return [fail(what, do)]
    except TimeoutError:
        reason = f"it did not answer within {seconds:g} s"
    except BUS_ERRORS as error:
        reason = str(error)
    finally:
        await redis.aclose()
    return [fail(f"Redis at {shown}: {reason}", "start it, or correct REDIS_URL; users stay connected meanwhile")]


async def _memory(redis: Redis) -> dict[str, object]:
    """Ask for what Redis says of its memory. Raises BUS_ERRORS."""
    await redis.ping()
    found: dict[str, object] = await redis.info("memory")
    return found


def _of_memory(memory: dict[str, object], shown: str) -> Iterator[Finding]:
    policy = str(memory.get("maxmemory_policy", ""))
    if policy.startswith(_EVICTS) and int(str(memory.get("maxmemory", 0))):
        yield warn(
            f"Redis at {shown} may evict what is not read yet ({policy})",
            "set maxmemory-policy to noeviction or volatile-ttl",
        )
    else:
        yield ok(f"Redis at {shown} answers, and evicts nothing")
