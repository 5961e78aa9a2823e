"""``pgnode top``: the node live in a terminal, until a key ends it."""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Console, Group
from rich.live import Live

from pgnode.cli.looking import Looker
from pgnode.cli.output import say
from pgnode.cli.target import Named, find_target
from pgnode.cli.terminal import Keys, keys_of
from pgnode.cli.top_frame import frame
from pgnode.cli.top_model import Sample, TopModel
from pgnode.cli.verdict import verdict
from pgnode.errors import NotRunningError, OperatorError

#: Seconds between two looks.
POLL_INTERVAL_SECONDS = 2.0

#: Seconds to wait for a key before the screen is drawn again all the same.
IDLE_SECONDS = 10.0

#: A look with ``--once`` waits for a reading of the core for its interval and so many seconds.
ONCE_SECONDS = 5.0

#: Lines of one look that is printed.
ONCE_LINES = 40


def show_top(
    named: Named,
    *,
    once: bool = False,
    json_wanted: bool = False,
    interval_seconds: float = POLL_INTERVAL_SECONDS,
    console: Console | None = None,
) -> int:
    """Draw a node until a key ends it.

    Args:
        named: What the operator said about which node is meant.
        once: Print one look.
        json_wanted: Print one look as JSON.
        interval_seconds: Seconds between two looks.
        console: The terminal.

    Returns:
        The exit code: 0, or with ``once`` that of ``pgnode status``.

    Raises:
        NotRunningError: It does not run.
        OperatorError: It cannot be told which node is meant, or this is no terminal that can be drawn on.
    """
    target = find_target(named)
    if target.pid is None:
        raise NotRunningError(
            f"no node runs with STATE_DIR={target.settings.state_dir}: pgnode status shows what it stored"
        )
    screen = console if console is not None else Console(highlight=False, markup=False, emoji=False)
    looker, model = Looker(target), TopModel()
    if once or json_wanted:
        return _print_once(screen, looker, model, interval_seconds, json_wanted=json_wanted)
    if not (screen.is_terminal and sys.stdin.isatty()) or screen.is_dumb_terminal:
        raise OperatorError(
            "pgnode top draws on a terminal and reads its keys, and this is none: pgnode top --once prints one look, "
            "pgnode stats --watch --json goes on"
        )

    def leave() -> None:
        screen.set_alt_screen(False)
        screen.show_cursor(True)

    def enter() -> None:
        screen.set_alt_screen(True)
        screen.show_cursor(False)

    with contextlib.suppress(KeyboardInterrupt), keys_of(sys.stdin.fileno(), leave, enter) as keys:
        _draw(screen, looker, model, keys, interval_seconds)
    return 0


def _draw(screen: Console, looker: Looker, model: TopModel, keys: Keys, interval_seconds: float) -> None:
    """Draw until a key ends it."""
    samples: queue.SimpleQueue[Sample] = queue.SimpleQueue()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            samples.put(looker.look())
            keys.wake()
            ended.wait(interval_seconds)

    # Keys are obeyed also while a supervisor hangs. Nothing waits for the thread: it touches nothing but the queue.
    thread = threading.Thread(target=look, daemon=True)
    plain = not screen.encoding.lower().startswith("utf")
    thread.start()
    try:
        with Live(console=screen, screen=True, auto_refresh=False, transient=True) as live:
            while True:
                size = screen.size
                live.update(Group(*frame(model, size.width, size.height, plain=plain)), refresh=True)
                if (key := keys.wait(IDLE_SECONDS)) and model.press(key):
                    return
                with contextlib.suppress(queue.Empty):
                    while True:
                        model.take(samples.get_nowait())
    finally:
        ended.set()


def _print_once(
    screen: Console,
    looker: Looker,
    model: TopModel,
    interval_seconds: float,
    *,
    json_wanted: bool,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Print one look, with the rates between two."""
    sample = looker.look()
    model.take(sample)
    if sample.live is not None:
        first, until = sample.live.reading, monotonic() + sample.live.interval_seconds + ONCE_SECONDS
        while True:
            pause(interval_seconds)
            sample = looker.look()
            model.take(sample)
            if sample.live is None or sample.live.reading > first or sample.core is None or monotonic() >= until:
                break
    judged = verdict(sample.facts)
    if json_wanted:
        live = asdict(sample.live) if sample.live is not None else None
        core = asdict(sample.core) if sample.core is not None else None
        say(json.dumps({"status": judged.word, "because": list(judged.because), "core": core, "live": live}))
    else:
        lines = frame(model, screen.width, ONCE_LINES, plain=not screen.encoding.lower().startswith("utf"))
        # Without what fills a screen, and without what keys do.
        screen.print(Group(*(line for line in lines[:-1] if line.plain.strip())))
    return judged.exit_code
