"""``pgnode check-config`` without a file: whether a start, or a reload, would take the settings that there are now."""

from __future__ import annotations

from collections.abc import Iterator

from pgnode.cli import checks, path_checks
from pgnode.cli.doctor import REDIS_SECONDS, show_findings
from pgnode.cli.facts import find_facts
from pgnode.cli.findings import Finding
from pgnode.cli.target import Named, Target, find_target, running_settings
from pgnode.errors import SettingsError

#: The exit code where something is wrong: the settings are.
WRONG = SettingsError.exit_code


def show_settings_check(named: Named, *, json_wanted: bool = False, redis_seconds: float = REDIS_SECONDS) -> int:
    """Check the settings and print what was found.

    Args:
        named: What the operator said about which node is meant.
        json_wanted: Print JSON.
        redis_seconds: Seconds that an external Redis has to answer.

    Returns:
        The exit code: 0 where a start would take them, else 2.

    Raises:
        OperatorError: A value is not allowed, or it cannot be told which node is meant.
    """
    target = find_target(named)
    failed = show_findings(check_settings(target), target, redis_seconds, json_wanted=json_wanted)
    return WRONG if failed else 0


def check_settings(target: Target) -> Iterator[Finding]:
    """Look at all that a start depends on and that can be known without one.

    Args:
        target: The node, with the settings that there are now.

    Yields:
        What was found.
    """
    settings = target.settings
    facts = find_facts(target)
    yield checks.check_surroundings()
    yield from checks.check_settings(settings, target.env_file)
    yield from path_checks.check_state_dir(settings)
    yield from path_checks.check_paths(settings)
    held: frozenset[int] = frozenset()
    if target.pid is not None:
        held = frozenset(port for _, port in running_settings(target).ports.values())
    yield from checks.check_free_ports(settings.ports, held)
    if (key := path_checks.check_key(settings)) is not None:
        yield key
    yield from checks.check_certificate(settings, facts.at, facts.pid)
    yield from path_checks.check_disk(settings)
