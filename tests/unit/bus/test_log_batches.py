"""What workers and the supervisor say to each other about the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.log_batches import LogBatch, Watch


@given(st.builds(Watch, st.integers(0, 10**12), st.booleans(), st.sampled_from(["", "abc"]), st.integers(0, 1000)))
def test_what_a_worker_says_is_read_as_it_was_said(watch: Watch) -> None:
    assert Watch.decode(watch.encode()) == watch


@pytest.mark.parametrize("body", [b"", b"1 1 20", b"x 1 20 t", b"1 1 y t", b"\xff 1 1 1"])
def test_what_is_something_else_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Watch.decode(body)


@given(
    st.builds(LogBatch, st.text(min_size=1), st.integers(0, 10**12), st.binary(max_size=50), st.sampled_from(["", "t"]))
)
def test_an_entry_is_read_as_it_was_made(batch: LogBatch) -> None:
    fields = {
        name.encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in batch.fields().items()
    }
    assert LogBatch.of(fields) == batch
    assert batch.count == (len(batch.block.split(b"\n")) if batch.block else 0)


def test_an_entry_of_another_version_is_refused() -> None:
    with pytest.raises(KeyError):
        LogBatch.of({b"lines": b"one"})
