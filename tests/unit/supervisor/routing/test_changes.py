"""Changes of routing against a model of the core: what it refuses, what it does not answer, and what is done twice."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.bus.commands import Kind
from pgnode.errors import CoreUnavailableError, InvalidRequestError, NotFoundError
from pgnode.store.rows import TAKEN_ROUTING
from pgnode.store.state import StoredState
from pgnode.supervisor.routing.changes import DONE_MAX
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually
from tests.unit.supervisor.routing.stage import REFUSED, SILENT, Stage
from tests.unit.supervisor.routing.test_rule_table import BASE, A, B


async def test_a_change_that_is_delivered_again_is_done_once(stage: Stage) -> None:
    await stage.add(B)
    removal = pb.RemoveRoutingRuleRequest(rule_tag="b")
    await stage.do(Kind.REMOVE_RULE, removal, "same")
    await stage.do(Kind.REMOVE_RULE, removal, "same")
    with pytest.raises(NotFoundError):
        await stage.do(Kind.REMOVE_RULE, removal)
    assert stage.core.tags() == ["a"]


@pytest.mark.parametrize("early", [False, True])
async def test_what_is_refused_leaves_rules_and_overrides(stage: Stage, early: bool) -> None:
    await stage.override("DIRECT")
    stage.core.is_early = early
    stage.core.errors = [REFUSED]
    with pytest.raises(InvalidRequestError, match="the core refuses the rule: no"):
        await stage.add(B, reset=True)
    assert stage.core.tags() == ["a"]
    assert stage.core.overrides == {"bal": "DIRECT"}
    assert stage.core.replaced == early, "a core that kept its table is not told anything"
    assert stage.routing.table.rules(BASE) == [A]


async def test_a_core_that_did_not_answer_is_put_in_order_when_it_does(stage: Stage) -> None:
    stage.core.errors, stage.core.acts_all_the_same = [SILENT], True
    with pytest.raises(CoreUnavailableError, match=r"^failed to add the routing rule: Deadline"):
        await stage.add(B)
    assert stage.core.tags() == ["a", "b"]
    await eventually(lambda: stage.core.tags() == ["a"], "what was not acknowledged is gone")


async def test_a_change_puts_in_order_first(stage: Stage) -> None:
    stage.core.errors, stage.core.acts_all_the_same = [SILENT], True
    with pytest.raises(CoreUnavailableError):
        await stage.add(B)
    await stage.add({**B, "ruleTag": "c"})
    assert stage.core.tags() == ["a", "c"]


async def test_replacing_keeps_balancers_fixed(stage: Stage) -> None:
    await stage.override("DIRECT")
    await stage.add(B, reset=True)
    assert (stage.core.tags(), stage.core.overrides) == (["b"], {"bal": "DIRECT"})
    await stage.override("")
    assert stage.routing.table.overrides(BASE) == {}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Kind.REMOVE_RULE, pb.RemoveRoutingRuleRequest(rule_tag="a")),
        (Kind.OVERRIDE_BALANCER, pb.OverrideBalancerTargetRequest(balancer_tag="bal", target="DIRECT")),
    ],
)
async def test_what_the_core_does_not_answer_is_not_desired(stage: Stage, kind: Kind, message: Any) -> None:
    stage.core.errors = [SILENT]
    with pytest.raises(CoreUnavailableError, match=r"^failed to (remove|override)"):
        await stage.do(kind, message)
    assert (stage.routing.table.rules(BASE), stage.routing.table.overrides(BASE)) == ([A], {})


async def test_names_that_are_not_there(stage: Stage) -> None:
    with pytest.raises(NotFoundError, match="outbound 'X' not found"):
        await stage.override("X")
    unknown = pb.OverrideBalancerTargetRequest(balancer_tag="other", target="DIRECT")
    with pytest.raises(NotFoundError, match="balancer 'other' not found"):
        await stage.do(Kind.OVERRIDE_BALANCER, unknown)
    with pytest.raises(InvalidRequestError, match="empty balancer_tag"):
        await stage.do(Kind.OVERRIDE_BALANCER, pb.OverrideBalancerTargetRequest())


async def test_a_rule_that_is_there_already_is_not_sent(stage: Stage) -> None:
    await stage.add(A)
    assert stage.core.tags() == ["a"]


async def test_geo_files_that_are_missing_are_named(stage: Stage) -> None:
    with pytest.raises(InvalidRequestError, match=r"geoip.dat"):
        await stage.add({**B, "ip": ["geoip:ir"]})


async def test_a_rule_that_could_end_the_core_is_tried_first(stage: Stage) -> None:
    rule = {**B, "attrs": {":path": "(["}}
    stage.refusal = "missing closing ]"
    with pytest.raises(InvalidRequestError, match="no regular expression"):
        await stage.add(rule)
    stage.refusal = ""
    await stage.add(rule)
    assert stage.core.tags() == ["a", "b"]


async def test_changes_that_were_done_are_noted_for_the_next_supervisor(stage: Stage) -> None:
    for number in range(DONE_MAX + 1):
        await stage.do(Kind.OVERRIDE_BALANCER, pb.OverrideBalancerTargetRequest(balancer_tag="bal"), f"c{number}")
    taken = stage.journal.take().taken
    assert (taken["c0"], taken["c1"]) == (None, TAKEN_ROUTING)
    stage.changes.restore(StoredState(taken={"before": TAKEN_ROUTING, "other": "users"}))
    removal = pb.RemoveRoutingRuleRequest(rule_tag="a")
    await stage.do(Kind.REMOVE_RULE, removal, "before")
    assert stage.core.tags() == ["a"], "it was done already"
    await stage.do(Kind.REMOVE_RULE, removal, "other")
    assert stage.core.tags() == []
    assert "done" in repr(stage.changes)
