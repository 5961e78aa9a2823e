"""``python -m tests.fuzz [door …]``: send odd inputs to each door for a while; the exit status is 1 when something was found."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom

import click

from tests.fuzz import configs
from tests.fuzz.cases import Case, GrpcCase, HttpCase, to_json
from tests.fuzz.doors import DOORS, Door, make_case
from tests.fuzz.senders import Outcome
from tests.fuzz.stage import FuzzedNode, faults_of, fuzzed_node, is_alive
from tests.support import isolated_python
from tests.support.polling import pause

FOUND = Path("build", "fuzz")
#: So many findings at a door are enough.
_FINDINGS_MAX = 10

#: So often a call that went wrong is sent again.
_FURTHER_TRIES = 10
_ISOLATED = "PGNODE_FUZZ_ISOLATED"


@dataclass
class Run:
    """One door, knocked at for a while."""

    door: Door
    seed: int
    first: FuzzedNode
    second: FuzzedNode
    sent: int = 0
    found: int = 0
    #: Statuses of the answers, and how often.
    seen: dict[str, int] = field(default_factory=dict)

    async def lane(self, numbers: Iterator[int], until: float) -> None:
        """Send one input after the other."""
        for number in numbers:
            if (
                time.monotonic() > until
                or self.found >= _FINDINGS_MAX
                or not (is_alive(self.first) and is_alive(self.second))
            ):
                return
            await self.one(number)

    async def sent_once(self, node: FuzzedNode, case: Case) -> tuple[Outcome, list[str]]:
        """Send an input; return what came of it, and what is wrong with that. OSError, TimeoutError."""
        try:
            outcome = await node.sender.send(case)
        except OSError as error:
            if not isinstance(case, GrpcCase):
                raise
            return Outcome(b"", 0.0, ended=True), [f"no connection: {error!r}"]
        return outcome, faults_of(case, outcome)

    async def one(self, number: int) -> None:
        """Send one input and look at everything."""
        case = make_case(self.door.name, self.seed, number)
        node = self.second if isinstance(case, HttpCase) and case.second else self.first
        try:
            outcome, faults = await self.sent_once(node, case)
            for _ in range(_FURTHER_TRIES if isinstance(case, GrpcCase) else 0):
                # Other inputs may have ended the library's server, and all its calls: a path that is no text does.
                if faults:
                    # Until another server has taken its place the port refuses connections.
                    await pause()
                    outcome, faults = await self.sent_once(node, case)
            faults += await node.settle(case, outcome)
        except (OSError, TimeoutError) as error:
            faults = [f"no connection: {error!r}"]
        self.sent += 1
        faults += [*self.first.faults(), *self.second.faults()]
        if faults:
            self.report(number, case, faults)

    def report(self, number: int | None, case: Case | None, faults: Iterable[str]) -> None:
        """Print a finding, and keep its input."""
        self.found += 1
        print(f"\n!! {self.door.name}, seed {self.seed}, input {'(end)' if number is None else number}:")
        for fault in faults:
            print(f"   {fault}")
        if case is not None:
            FOUND.mkdir(parents=True, exist_ok=True)
            path = FOUND / f"{self.door.name}-{self.seed}-{number}.json"
            path.write_text(to_json(case))
            print(f"   kept as {path}")
            for part in case.parts[:3]:
                print(f"   {part[:400]!r}")
            print(
                f"   again: make fuzz FUZZ_DOORS={self.door.name} FUZZ_SEED={self.seed} FUZZ_ONLY={number}", flush=True
            )


async def knock(run: Run, seconds: float, only: Iterable[int]) -> None:
    """Send inputs to one door."""
    chosen = list(only)
    numbers: Iterator[int] = iter(chosen) if chosen else itertools.count()
    until = time.monotonic() + (1e9 if chosen else seconds)
    await asyncio.gather(*(run.lane(numbers, until) for _ in range(1 if chosen else run.door.lanes)))
    for node in (run.first, run.second):
        faults = [*node.memory_faults(), *await node.still_moves(), *await node.exact_round(), *node.faults()]
        if faults:
            run.report(None, None, faults)


async def fuzz(doors: Iterable[str], seed: int, seconds: float, only: Iterable[int], log: Path) -> int:
    """Knock at the doors, one after the other. Returns the number of findings."""
    found = 0
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:

        def keep(line: str) -> None:
            file.write(line + "\n")
            file.flush()

        for name in doors:
            door = DOORS[name]
            print(f"{name:10} {door.what}; seed {seed} …", flush=True)
            # Nodes of its own: what a door leaves behind is not held against the next one.
            async with (
                fuzzed_node(keep) as first,
                fuzzed_node(keep, first_port=configs.SECOND_PORT, HTTP_PARSER="python") as second,
            ):
                run = Run(door, seed, first, second)
                await knock(run, seconds, only)
            print(f"{name:10} {run.sent} inputs, {run.found} findings", flush=True)
            found += run.found
    return found


def _numbers(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1)) if text else []


def _isolated() -> None:
    """Run in a network of its own, where that is possible: configs name any port and any address."""
    if os.environ.get(_ISOLATED) or not isolated_python.is_possible():
        return
    os.environ[_ISOLATED] = "1"
    command = [sys.executable, isolated_python.__file__]
    os.execv(command[0], [*command, "-m", "tests.fuzz", *sys.argv[1:]])


@click.command(help=f"Send odd inputs to the doors ({', '.join(DOORS)}), or to those that are named.")
@click.argument("doors", nargs=-1, type=click.Choice(list(DOORS)))
@click.option("--seconds", default=60.0, show_default=True, help="For each door.")
@click.option("--seed", type=int, default=None, help="A number that makes the same inputs again; printed.")
@click.option("--only", default="", help="One input by its number, or several: 7 or 3-7.")
def main(doors: tuple[str, ...], seconds: float, seed: int | None, only: str) -> None:
    _isolated()
    chosen = SystemRandom().randrange(1 << 31) if seed is None else seed
    found = asyncio.run(fuzz(doors or DOORS, chosen, seconds, _numbers(only), FOUND / f"nodes-{chosen}.log"))
    print(f"seed {chosen}: {found} findings" + (f"; inputs and logs are in {FOUND}" if found else ""))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
