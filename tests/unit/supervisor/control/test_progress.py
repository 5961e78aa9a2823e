"""How far a supervisor is."""

from __future__ import annotations

from pgnode.supervisor.control.progress import Phase, Progress


def test_it_says_what_it_waits_for() -> None:
    progress = Progress()
    assert (progress.phase, progress.step) == (Phase.STARTING, "")
    progress.enter(Phase.STARTING, "the store")
    assert repr(progress) == "Progress(starting: the store)"
    assert progress.line("idle", 0) == "starting: the store"
    progress.enter(Phase.READY)
    assert progress.line("running", 12_345) == "running, 12,345 users"
    assert progress.line("running", 1, drained=True) == "running, being drained, 1 user"
    assert (progress.phase, progress.step) == (Phase.READY, "")
