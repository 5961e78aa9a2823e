"""Changes of routing against a model of the core: what it refuses, what it does not answer, and what is done twice."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.errors import CoreUnavailableError, InvalidRequestError, NotFoundError, UnavailableError, UnsupportedError
from pgnode.store.changes import Journal
from pgnode.supervisor.commands import inspections as looks
from pgnode.supervisor.commands.dispatcher import Answers, CommandDispatcher
from pgnode.supervisor.commands.inspections import Inspections
from pgnode.supervisor.routing.changes import RoutingChanges
from pgnode.supervisor.routing.core_routing import CoreRouting
from pgnode.supervisor.routing.rule_table import RuleTable
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.routing import ListedRule
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.proto import router_pb2
from tests.support.polling import eventually
from tests.unit.supervisor.commands.handlers import handlers
from tests.unit.supervisor.routing.test_rule_table import BASE, OTHER, A, B

REFUSED = CoreApiError("app/router: no", ErrorKind.REFUSED)
SILENT = CoreApiError("Deadline Exceeded", ErrorKind.DEADLINE)


class ModelCore:
    """Rules and overrides of a core. Each call takes the next of ``errors``, if there is one; an early core loses its table."""

    def __init__(self) -> None:
        self.rules_there = [ListedRule(outbound, tag) for outbound, tag in RuleTable(Journal()).listed(BASE)]
        self.overrides: dict[str, str] = {}
        self.errors: list[CoreApiError] = []
        self.acts_all_the_same = False
        self.is_early = False
        self.replaced = 0

    def _fail(self) -> CoreApiError | None:
        return self.errors.pop(0) if self.errors else None

    async def rules(self) -> list[ListedRule]:
        return list(self.rules_there)

    async def add_rules(self, config: router_pb2.Config, *, append: bool) -> None:
        error = self._fail()
        if error is not None and not self.acts_all_the_same:
            if self.is_early and not append:
                self.rules_there = []
            raise error
        new = [ListedRule(rule.tag, rule.rule_tag) for rule in config.rule]
        self.replaced += not append
        self.rules_there = [*self.rules_there, *new] if append else new
        if not append:
            self.overrides = {}
        if error is not None:
            raise error

    async def remove_rule(self, tag: str) -> None:
        if (error := self._fail()) is not None:
            raise error
        self.rules_there = [rule for rule in self.rules_there if rule.tag != tag]

    async def override(self, balancer: str, target: str) -> bool:
        if (error := self._fail()) is not None:
            raise error
        self.overrides[balancer] = target
        return balancer == "bal"

    def tags(self) -> list[str]:
        return [rule.tag for rule in self.rules_there[1:]]


class Stage:
    def __init__(self) -> None:
        self.core = ModelCore()
        self.base = BASE
        settings = SimpleNamespace(assets_dir=None, core_call_timeout_seconds=1.0)
        self.version = "26.10.10"

        async def version() -> str:
            return self.version

        async def refusal(_base: BaseConfig) -> str:
            return self.refusal

        #: What a trial says.
        self.refusal = ""
        self.journal = Journal()
        control = SimpleNamespace(api=SimpleNamespace(channel=object()), version=version, refusal=refusal)
        self.control = control
        self.routing = CoreRouting(
            cast(Any, settings),
            cast(Any, control),
            self.journal,
            asyncio.Lock(),
            lambda: self.base,
            connect=lambda _channel, _limit: cast(Any, self.core),
            sleep=lambda _seconds: asyncio.sleep(0.01),
        )
        self.changes = RoutingChanges(
            cast(Any, settings), cast(Any, control), self.routing, self.journal, lambda: self.base
        )
        self.routing.table.adopt_base(BASE)
        self._number = 0

    async def do(self, kind: Kind, message: Any, command_id: str = "") -> None:
        self._number += 1
        command = Command("0-1", command_id or str(self._number), kind, "w", 1000, message.SerializeToString())
        assert await self.changes.handlers[kind](command) == b""

    async def add(self, rule: dict[str, Any], *, reset: bool = False) -> None:
        await self.do(Kind.ADD_RULE, pb.AddRoutingRuleRequest(rule=json.dumps(rule), should_reset=reset))

    async def override(self, target: str) -> None:
        await self.do(Kind.OVERRIDE_BALANCER, pb.OverrideBalancerTargetRequest(balancer_tag="bal", target=target))


@pytest.fixture
async def stage() -> Stage:
    return Stage()


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


async def test_a_look_waits_behind_no_change() -> None:
    """A change holds the turn for as long as the test lasts."""
    taken = [
        Command("0-1", "look", Kind.LIST_RULES, "w", 1000, b""),
        Command("0-2", "add", Kind.ADD_RULE, "w", 1000, b""),
    ]
    answered: list[str] = []
    never = asyncio.Event()

    async def take() -> list[Command]:
        if not taken:
            await never.wait()
        return [taken.pop()]

    async def answer(answers: Answers) -> bool:
        answered.extend(command.id for command, _ in answers)
        return True

    async def handler(_command: Command) -> bytes:
        return b""

    async def change(_command: Command) -> bytes:
        await never.wait()
        return b""

    server = SimpleNamespace(take=take, expired=lambda _command: False, looks_again=False)
    committer = SimpleNamespace(answer=answer)
    known = handlers(changes={Kind.ADD_RULE: change}, inspections={Kind.LIST_RULES: handler})
    commands = CommandDispatcher(cast(Any, server), cast(Any, committer), asyncio.Lock(), known)
    tasks = [asyncio.create_task(work()) for work in (commands.read, commands.write)]
    try:
        await eventually(lambda: answered, "the look is answered")
        assert answered == ["look"]
    finally:
        for task in tasks:
            task.cancel()


async def test_looks_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "INSPECTIONS_MAX", 2)
    go_on = asyncio.Event()
    sent: list[Reply] = []

    async def answer(_command: Command) -> Reply:
        await go_on.wait()
        return Reply()

    async def send(_command: Command, reply: Reply) -> None:
        sent.append(reply)

    all_looks = Inspections(answer, send)
    for number in range(3):
        all_looks.begin(Command("0-1", str(number), Kind.LIST_RULES, "w", 1000, b""))
    await eventually(lambda: sent, "one is refused at once")
    assert isinstance(sent[0].error, UnavailableError)
    go_on.set()
    await eventually(lambda: len(sent) == 3, "the others are answered")
    assert [reply.error for reply in sent[1:]] == [None, None]
