"""``python -m bench [scenario …]``: run scenarios and print one table. The exit status is 0 also when an aim is missed.

It is 1 when a scenario could not be measured, 2 when its name is unknown, 130 when interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import signal
import ssl
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click
from rich.console import Console

from bench.charts import charts
from bench.registry import Bench, Scenario, scenarios
from bench.report import Row, beside, markdown, read_results, table
from pgnode import __version__

#: The scenarios that are run without being named end within this time together; one that is cut off by it counts as not
#: measured. Each has a limit of its own besides.
TOTAL_TIMEOUT_SECONDS = 420.0

#: In place of names: also the scenarios that take long.
ALL = "all"


@click.command(
    help="Measure the node beside what it is held against. Without names, all scenarios are run but those that take long; "
    f"{ALL!r} names every one."
)
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option(
    "--seconds", default=1.5, show_default=True, type=click.FloatRange(0.2, 60), help="Seconds of load per round."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 20), help="Turns that each side takes.")
@click.option("--connections", default=32, show_default=True, type=click.IntRange(1, 1024), help="TLS connections.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Workers on either side.")
@click.option(
    "--scale",
    multiple=True,
    default=(10, 30, 100),
    show_default=True,
    type=click.IntRange(4, 256),
    help="API workers on all hosts together, for the scenario scale; may be given more than once.",
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here, too."
)
@click.option(
    "--markdown", "markdown_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the table here, too."
)
@click.option(
    "--beside",
    "beside_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Show the node's figures of an earlier result (of --json) in place of the other side.",
)
@click.option(
    "--charts",
    "charts_folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Draw the main rows here, too: an SVG file for each scenario.",
)
@click.option(
    "--from",
    "from_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure nothing, and show an earlier result (of --json).",
)
@click.option("--list", "only_list", is_flag=True, help="List the scenarios and end.")
def main(
    *,
    names: tuple[str, ...],
    seconds: float,
    rounds: int,
    connections: int,
    workers: int,
    scale: tuple[int, ...],
    json_file: Path | None,
    markdown_file: Path | None,
    beside_file: Path | None,
    charts_folder: Path | None,
    from_file: Path | None,
    only_list: bool,
) -> None:
    known = scenarios()
    if only_list:
        for item in known.values():
            click.echo(f"{item.name:10} {item.title}{'' if item.default else ' (only when it is named)'}")
        return
    if ALL in names:
        names = tuple(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"no scenario is called {', '.join(unknown)}; there are: {', '.join(known)}")
    if names and from_file is not None:
        raise click.UsageError("--from shows all of its file and measures nothing: leave the scenarios out")
    earlier, earlier_facts = ({}, {}) if beside_file is None else _read(beside_file)
    errors = Console(stderr=True, highlight=False)
    failed: dict[str, str] = {}
    if from_file is not None:
        results, facts = _read(from_file)
    else:
        chosen = [
            known[name] for name in dict.fromkeys(names or (name for name, item in known.items() if item.default))
        ]
        bench = Bench(
            seconds=seconds,
            rounds=rounds,
            connections=connections,
            workers=workers,
            scale=scale,
            say=lambda text: errors.print(f"[dim]{text}[/]"),
            facts=machine_facts(),
        )
        begun = time.monotonic()
        try:
            results, failed = asyncio.run(run_all(bench, chosen, float("inf") if names else TOTAL_TIMEOUT_SECONDS))
        except (KeyboardInterrupt, asyncio.CancelledError):
            errors.print("Interrupted; everything the bench started has ended.")
            sys.exit(130)
        facts = bench.facts | {
            "load": f"{rounds} rounds of {seconds:g} s, {connections} TLS connections, {workers} workers; medians; "
            f"{time.monotonic() - begun:.0f} s in all"
        }
    width = None if sys.stdout.isatty() else 150
    titles = {name: item.title for name, item in known.items()}
    shown = results if beside_file is None else beside(results, earlier, earlier_facts["pgnode"])
    Console(highlight=False, width=width).print(table(shown, facts, titles))
    if markdown_file is not None:
        markdown_file.write_text(markdown(shown, facts, titles), encoding="utf-8")
    if json_file is not None:
        json_file.write_text(as_json(results, facts), encoding="utf-8")
    if charts_folder is not None:
        charts_folder.mkdir(parents=True, exist_ok=True)
        for name, text in charts(shown, facts, titles).items():
            (charts_folder / f"{name}.svg").write_text(text, encoding="utf-8")
    for name, reason in failed.items():
        errors.print(f"[bold red]{name} could not be measured:[/] {reason}", markup=True)
    sys.exit(1 if failed else 0)


def _read(file: Path) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """The results in a file. click.UsageError where it has none."""
    try:
        return read_results(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.UsageError(f"{file}: {error}") from None


async def run_all(
    bench: Bench, chosen: Sequence[Scenario], total_seconds: float
) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """Rows by scenario, and why scenarios could not be measured (to their end)."""
    results: dict[str, list[Row]] = {item.name: [] for item in chosen}
    failed: dict[str, str] = {}
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    # As with SIGINT: what was started is ended before the bench ends.
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    total = loop.time() + total_seconds
    for item in chosen:
        limit = min(loop.time() + item.timeout_seconds, total)
        try:
            async with asyncio.timeout_at(limit), contextlib.aclosing(item.run(bench)) as rows:
                async for row in rows:
                    results[item.name].append(row)
        except TimeoutError:
            failed[item.name] = f"it took longer than {item.timeout_seconds:g} s, or all of them {total_seconds:g} s"
        except Exception as error:  # one that fails leaves the others to be measured
            failed[item.name] = f"{type(error).__name__}: {error}"
    return results, failed


def machine_facts() -> dict[str, str]:
    """What figures depend on, for the head of the table."""
    cores = len(os.sched_getaffinity(0))
    return {
        "pgnode": __version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{cores} cores, {_cpu_model()}, {platform.system()} {platform.release()}",
        "Python": f"{platform.python_version()}, {ssl.OPENSSL_VERSION}, gunicorn {version('gunicorn')}, "
        f"falcon {version('falcon')}, uvloop {version('uvloop')}",
        "load before": "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg()),
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def as_json(results: dict[str, list[Row]], facts: dict[str, str]) -> str:
    """The content of ``--json``."""
    made = {"facts": facts, "scenarios": {name: [row.as_json() for row in rows] for name, rows in results.items()}}
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
