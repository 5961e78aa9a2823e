"""What the operator is told where the store alone answers, or nothing does."""

from __future__ import annotations

import re
from pathlib import Path

from pgnode.cli.stored import no_state, not_running
from pgnode.settings import load


def test_a_node_that_does_not_run_is_told_with_the_time_of_its_state() -> None:
    text = not_running(1_700_000_000.5)
    assert re.fullmatch(r"the node is not running; this is the state it stored at 2023-11-1[45] \d\d:\d\d:20", text)


def test_a_folder_without_a_store_is_named(tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path))
    error = no_state(settings, None)
    assert (str(error), error.exit_code) == (
        f"no node has run with STATE_DIR={tmp_path}: there is no state.db. Start it with `pgnode run`, or say with --state-dir "
        "which node is meant",
        3,
    )
    error = no_state(settings, 812)
    assert (str(error), error.exit_code) == (
        f"the supervisor (pid 812) has made no {tmp_path}/state.db yet: it is starting, or `pgnode status` tells more",
        4,
    )
