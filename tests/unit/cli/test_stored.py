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
    error = no_state(load(state_dir=str(tmp_path)))
    assert str(error) == (
        f"the node's store does not answer (there is no state.db): is the node with this STATE_DIR={tmp_path} running?"
    )
    assert error.exit_code == 1
