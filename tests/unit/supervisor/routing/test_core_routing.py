"""The routing of the core that runs, brought to what is desired."""

from __future__ import annotations

import pytest

from pgnode.bus.commands import Kind
from pgnode.errors import (
    CoreNotStartedError,
    CoreUnavailableError,
    UnsupportedError,
)
from pgnode.store.state import StoredState
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.routing import ListedRule
from tests.support.polling import eventually, next_turn
from tests.unit.supervisor.routing.stage import REFUSED, SILENT, Stage
from tests.unit.supervisor.routing.test_rule_table import BASE, OTHER, A, B


async def test_another_config_in_the_same_core_forgets_what_was_changed(stage: Stage) -> None:
    await stage.routing.reconcile(OTHER, listing_is_enough=False)
    assert stage.core.replaced == 0, "nothing was changed, nothing is sent"
    stage.routing.table.adopt_base(BASE)
    # Another rule in the place of the configured one: a core lists both alike.
    await stage.do(Kind.REMOVE_RULE, pb.RemoveRoutingRuleRequest(rule_tag="a"))
    await stage.add({**A, "domain": ["b.example"]})
    await stage.override("DIRECT")
    await stage.routing.reconcile(OTHER, listing_is_enough=False)
    assert stage.core.replaced == 1
    assert (stage.core.tags(), stage.core.overrides) == (["a"], {"bal": ""})
    assert stage.routing.table.rules(OTHER) == [A]


async def test_a_core_that_is_taken_over_gets_what_is_desired(stage: Stage) -> None:
    stage.core.rules_there.append(ListedRule("DIRECT", "stranger"))
    stage.core.overrides = {"bal": "BLOCK"}
    await stage.routing.reconcile(BASE, listing_is_enough=False)
    assert (stage.core.tags(), stage.core.overrides) == (["a"], {"bal": ""})


@pytest.mark.parametrize(
    ("version", "taken"), [("26.3.27", False), ("1.8.24", False), ("26.4.13", True), ("27.1.0", True), ("", True)]
)
async def test_a_core_that_would_take_a_rule_for_another_one_gets_none(stage: Stage, version: str, taken: bool) -> None:
    stage.version = version
    if not taken:
        with pytest.raises(UnsupportedError, match="is too old to be given rules"):
            await stage.add(B)
        stage.routing.table.set_rules(BASE, [B])
        with pytest.raises(UnsupportedError):
            await stage.routing.reconcile(BASE, listing_is_enough=False)
        assert stage.core.tags() == ["a"]
    else:
        await stage.add(B)
        assert stage.core.tags() == ["a", "b"]


async def test_what_is_not_known_cannot_be_reconciled(stage: Stage) -> None:
    stage.core.list_error = SILENT
    with pytest.raises(CoreUnavailableError, match="the routing rules are not known"):
        await stage.routing.reconcile(BASE, listing_is_enough=False)
    stage.core.list_error = None
    stage.core.rules_there = []
    stage.core.errors = [REFUSED]
    with pytest.raises(CoreUnavailableError, match="failed to replace the routing rules"):
        await stage.routing.reconcile(BASE, listing_is_enough=False)


async def test_a_core_that_comes_up_gets_its_balancers_fixed(stage: Stage) -> None:
    stage.routing.table.set_override(BASE, "bal", "DIRECT")
    stage.routing.table.set_override(BASE, "gone", "DIRECT")
    await stage.routing.core_started(BASE)
    assert stage.core.overrides == {"bal": "DIRECT", "gone": "DIRECT"}
    assert not stage.routing.is_uncertain


async def test_a_core_that_does_not_take_its_balancers_is_put_in_order_later(stage: Stage) -> None:
    stage.routing.table.set_override(BASE, "bal", "DIRECT")
    stage.core.errors = [SILENT]
    await stage.routing.core_started(BASE)
    assert "uncertain" in repr(stage.routing)
    await eventually(lambda: not stage.routing.is_uncertain, "it is in order")
    assert stage.core.overrides == {"bal": "DIRECT"}


async def test_it_is_tried_until_the_core_answers(stage: Stage) -> None:
    stage.core.list_error = SILENT
    await stage.routing.after_failure(BASE, REFUSED)
    assert stage.routing.is_uncertain
    stage.routing.mark_uncertain()  # the same repair goes on
    await next_turn()
    stage.core.list_error = None
    await eventually(lambda: not stage.routing.is_uncertain, "it is in order")


async def test_the_next_core_needs_no_repair(stage: Stage) -> None:
    stage.control.api = None
    stage.routing.mark_uncertain()
    assert stage.routing._repairing is not None
    await stage.routing._repairing
    with pytest.raises(CoreNotStartedError):
        stage.routing.api()


async def test_what_was_stored_is_restored_and_forgotten(stage: Stage) -> None:
    stage.routing.table.set_rules(BASE, [B])
    stored = StoredState(routing=stage.routing.table.fields())
    other = Stage()
    other.routing.restore(stored)
    assert other.routing.table.rules(BASE) == [B]
    other.routing.forget()
    assert other.routing.table.rules(BASE) == [A]
    assert other.journal.routing == {"base": None, "rules": None, "overrides": None}


@pytest.mark.parametrize(
    "fields",
    [
        {"rules": "{"},
        {"rules": "5"},
        {"rules": "[7]"},
        {"rules": '[{"x": 5}]'},
        {"rules": "[" * 100_000},
        {"rules": 5},
        {"overrides": "[]"},
        {"overrides": '{"a": 5}'},
        {"base": b"x"},
    ],
)
def test_what_is_damaged_is_forgotten(fields: dict[str, str]) -> None:
    stage = Stage()
    stage.routing.restore(StoredState(routing={"base": BASE.base_hash, **fields}))
    assert stage.routing.table.rules(BASE) == [A]
    assert stage.journal.routing == {"base": None, "rules": None, "overrides": None}
