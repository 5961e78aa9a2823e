"""The scenarios: how a file in ``bench/scenarios`` becomes one, and what it is given.

::

    @scenario("reads", "GET requests beside a bare Falcon app")
    async def reads(bench: Bench) -> AsyncIterator[Row]:
        async with …:
            yield Row(…)
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import bench.scenarios
from bench.report import Row

Run = Callable[["Bench"], AsyncGenerator[Row, None]]


@dataclass
class Bench:
    """What a scenario is given: how much to measure, and where to say things."""

    #: Seconds that load is measured for, in each round.
    seconds: float = 1.5
    #: How often each side takes its turn; what is shown is the median.
    rounds: int = 3
    #: TLS connections of the load generator, one request at a time on each.
    connections: int = 32
    #: Workers of the node and of a bare app beside it.
    workers: int = 2
    #: Numbers of API workers, on all hosts together, that the scenario of that name tries.
    scale: tuple[int, ...] = (10, 30, 100)
    #: Told what is being done.
    say: Callable[[str], None] = lambda _text: None
    #: Facts for the head of the table, filled by whoever learns one.
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One entry of the registry. ``timeout_seconds`` is for all of it, setting up included."""

    name: str
    title: str
    run: Run
    timeout_seconds: float
    #: Run without being named.
    default: bool = True


_scenarios: dict[str, Scenario] = {}


def scenario(name: str, title: str, *, timeout_seconds: float = 120.0, default: bool = True) -> Callable[[Run], Run]:
    """Put an async generator of rows into the registry. ValueError where the name is taken.

    One that is not ``default`` takes long, and is run when it is named, or with ``all``.
    """

    def register(run: Run) -> Run:
        if name in _scenarios:
            raise ValueError(f"two scenarios have the name {name!r}")
        _scenarios[name] = Scenario(name, title, run, timeout_seconds, default)
        return run

    return register


def scenarios() -> dict[str, Scenario]:
    """All scenarios by name, in the order of their files' names."""
    for module in sorted(pkgutil.iter_modules(bench.scenarios.__path__), key=lambda found: found.name):
        importlib.import_module(f"{bench.scenarios.__name__}.{module.name}")
    return dict(_scenarios)
