"""All of the corpus, sent to one node with a core: answered as its table says, and nothing of the node is worse for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fuzz import corpus
from tests.fuzz.corpus import Entry
from tests.fuzz.doors import DOORS
from tests.fuzz.stage import FuzzedNode, fuzzed_node

ENTRIES = corpus.entries()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fuzzed() -> AsyncIterator[FuzzedNode]:
    async with fuzzed_node() as running:
        yield running


def test_the_table_has_every_file() -> None:
    assert corpus.files() == {entry.file for entry in ENTRIES}
    folders = {tuple(entry.file.split("/")[:2]) for entry in ENTRIES}
    assert folders == {(door, kind) for door in DOORS for kind in ("valid", "invalid")}


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "/valid/" in entry.file], ids=lambda entry: entry.file)
def test_what_is_valid_succeeds(entry: Entry) -> None:
    assert {answer.split(" ")[0] for answer in entry.answers} <= {"200", "OK"}


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.file for entry in ENTRIES])
@pytest.mark.asyncio(loop_scope="module")
async def test_answer(fuzzed: FuzzedNode, entry: Entry) -> None:
    case = entry.case()
    outcome = await fuzzed.sender.send(case)
    assert outcome.ended
    assert entry.fault(outcome.data) == ""
    assert [*await fuzzed.settle(case, outcome), *fuzzed.faults()] == []


@pytest.mark.asyncio(loop_scope="module")
async def test_the_node_is_well_afterwards(fuzzed: FuzzedNode) -> None:
    assert [*await fuzzed.still_moves(), *await fuzzed.exact_round(), *fuzzed.faults()] == []
