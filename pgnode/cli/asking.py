"""Asks the node that is meant, for commands that can do nothing without its answer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pgnode.cli.target import Target
from pgnode.cli.texts import seconds_of
from pgnode.errors import ArgumentError, NotAnsweringError, NotRunningError, OperatorError
from pgnode.supervisor.control.client import ASK_SECONDS, DeclinedError, NotAnsweredError, ask


def ask_node(
    target: Target,
    question: str,
    values: Mapping[str, Any] = MappingProxyType({}),
    *,
    seconds: float = ASK_SECONDS,
) -> dict[str, Any]:
    """Ask the supervisor of a node.

    Args:
        target: The node.
        question: What is asked.
        values: What is said with the question.
        seconds: Seconds that it has to answer.

    Returns:
        The answer.

    Raises:
        NotRunningError: No supervisor runs.
        NotAnsweringError: It does not answer.
        OperatorError: It says why not.
    """
    if target.pid is None:
        raise not_running(target)
    try:
        return ask(target.settings.run_dir, question, values, seconds=seconds)
    except DeclinedError as error:
        raise OperatorError(str(error)) from None
    except NotAnsweredError as error:
        raise NotAnsweringError(
            f"the supervisor (pid {target.pid}) does not answer: {error}; `pgnode status` tells more"
        ) from None


def not_running(target: Target) -> NotRunningError:
    """Return the error that no node runs."""
    return NotRunningError(f"no node runs with STATE_DIR={target.settings.state_dir}")


def seconds_from(option: str, text: str | None) -> int | None:
    """Read a time that an option was given.

    Args:
        option: The option.
        text: Its value; None for none.

    Returns:
        The time in seconds; None for none.

    Raises:
        ArgumentError: It is no time.
    """
    if text is None:
        return None
    seconds = seconds_of(text)
    if seconds is None or seconds == 0:
        raise ArgumentError(f"{option} {text} is not allowed: give a number with s, m, h or d behind it, such as 10m")
    return seconds
