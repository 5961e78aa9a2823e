"""What is desired of the core's routing beyond its config: rules that were added or removed, and fixed balancers. Pure.

It belongs to one base config, known by its hash, and does not apply to any other. The rules are kept as JSON, as in a config:
a core starts with them, and only a core that runs already is told by message.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final

from pgnode.errors import InvalidRequestError, NotFoundError
from pgnode.store.changes import Journal
from pgnode.wire.texts import shown
from pgnode.xray.config.document import BaseConfig, with_rules
from pgnode.xray.config.names import balancer_names, listed, outbound_names
from pgnode.xray.config.rewrite import GUARD_RULE_TAG
from pgnode.xray.proto import router_pb2
from pgnode.xray.rules.compile import Rule, compile_routing

#: A rule without a tag cannot be removed, so it is given one: this and a hash of its content.
TAG_PREFIX: Final = "pgnode-"

#: Rules beside those of the config, at most: all are checked for every connection, and stored with every change.
ADDED_MAX: Final = 1000

#: Rows of the store's table ``routing``.
_FIELDS: Final = ("base", "rules", "overrides")


class RuleTable:
    """The desired routing. Belongs to the supervisor's loop.

    Args:
        journal: Where changes are noted for the store.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._base_hash = ""
        #: The panel's rules, in their order, in place of those of the config; None: the config's own.
        self._rules: list[Rule] | None = None
        self._overrides: dict[str, str] = {}

    def __repr__(self) -> str:
        rules = "as configured" if self._rules is None else f"{len(self._rules)} rules"
        return f"RuleTable({rules}, {len(self._overrides)} overrides, of {self._base_hash[:8]})"

    # --- what is stored -----------------------------------------------------------------------------------------

    def fields(self) -> dict[str, str]:
        """Return what the store holds of it; empty when nothing was changed."""
        if not self.touched:
            return {}
        fields = {"base": self._base_hash, "overrides": json.dumps(self._overrides)}
        if self._rules is not None:
            fields["rules"] = json.dumps(self._rules)
        return fields

    def restore(self, fields: Mapping[str, str]) -> None:
        """Take over what :meth:`fields` said.

        Args:
            fields: As stored.

        Raises:
            ValueError: It is damaged; then it is forgotten, and the rules are those of the config.
        """
        try:
            self._base_hash, self._rules, self._overrides = _read(fields)
        except ValueError:
            self._note()
            raise

    def _note(self) -> None:
        self._journal.routing.update({**dict.fromkeys(_FIELDS), **self.fields()})

    # --- of which config ----------------------------------------------------------------------------------------

    def belongs_to(self, base: BaseConfig) -> bool:
        """Return whether the changes belong to this config."""
        return self._base_hash == base.base_hash

    def adopt_base(self, base: BaseConfig) -> None:
        """Attach the table to the config that runs now; changes of another one are forgotten."""
        if not self.belongs_to(base):
            self.forget()
            self._base_hash = base.base_hash

    def keep_for(self, base: BaseConfig) -> None:
        """Attach the table to the same config as before, which another version of the node reads differently."""
        if not self.belongs_to(base):
            self._base_hash = base.base_hash
            self._note()

    def forget(self) -> None:
        """Forget all changes."""
        touched = self.touched
        self._base_hash, self._rules, self._overrides = "", None, {}
        if touched:
            self._note()

    # --- what is desired ----------------------------------------------------------------------------------------

    @property
    def touched(self) -> bool:
        """Whether anything at all was changed in the config that it belongs to."""
        return self._rules is not None or bool(self._overrides)

    def changed(self, base: BaseConfig) -> bool:
        """Return whether the rules differ from those of the config."""
        return self.belongs_to(base) and self._rules is not None

    def rules(self, base: BaseConfig) -> list[Rule]:
        """Return the panel's rules that are desired; the node's own are not among them."""
        if self.belongs_to(base) and self._rules is not None:
            return self._rules
        return configured_rules(base)

    def overrides(self, base: BaseConfig) -> dict[str, str]:
        """Return balancers that are fixed, with their targets."""
        return self._overrides if self.belongs_to(base) else {}

    def effective(self, base: BaseConfig) -> BaseConfig:
        """Return the config that a core has to start with."""
        return self.with_panel_rules(base, self.rules(base)) if self.changed(base) else base

    def compile_all(self, base: BaseConfig, rules: Sequence[Rule] | None = None) -> router_pb2.Config:
        """Compile all rules and balancers to one message, which replaces whatever a core has.

        Args:
            base: The config that runs.
            rules: The panel's, in place of those that are desired.

        Returns:
            The message.

        Raises:
            InvalidRequestError: The core would refuse a rule.
        """
        chosen = self.rules(base) if rules is None else rules
        return compile_routing({**base.document["routing"], "rules": [*own_rules(base), *chosen]})

    def listed(self, base: BaseConfig) -> list[tuple[str, str]]:
        """Return (outbound, ruleTag) of each desired rule, as a core lists them."""
        rules = [*own_rules(base), *self.rules(base)]
        return [(rule.get("outboundTag") or "", rule.get("ruleTag") or "") for rule in rules]

    def with_panel_rules(self, base: BaseConfig, rules: Sequence[Rule]) -> BaseConfig:
        """Return ``base`` with other rules of the panel; the node's own stay in front."""
        return with_rules(base, [*own_rules(base), *rules])

    def set_rules(self, base: BaseConfig, rules: Sequence[Rule]) -> None:
        """Set the panel's rules, in place of those of the config."""
        self.adopt_base(base)
        self._rules = list(rules)
        self._note()

    def set_override(self, base: BaseConfig, balancer: str, target: str) -> None:
        """Fix a balancer to a target; an empty one ends it."""
        self.adopt_base(base)
        self._overrides = {**self._overrides, balancer: target}
        if not target:
            del self._overrides[balancer]
        self._note()

    # --- changes, planned -----------------------------------------------------------------------------------------

    def added(self, base: BaseConfig, rule: Rule, *, reset: bool) -> list[Rule] | None:
        """Plan the addition of a rule.

        Args:
            base: The config that runs.
            rule: The rule, with a tag.
            reset: It comes in place of all others.

        Returns:
            The panel's rules with it; None when it is there already.

        Raises:
            InvalidRequestError: The rule cannot be added; the text says why.
        """
        tag = rule["ruleTag"]
        if any(tag == own.get("ruleTag") for own in own_rules(base)):
            raise InvalidRequestError(f"ruleTag {shown(tag)} is the node's own: give the rule another one")
        for field, known in (("balancerTag", balancer_tags(base)), ("outboundTag", outbound_tags(base))):
            target = rule.get(field)
            if target and target not in known:
                raise InvalidRequestError(f"rule: unknown {field} {shown(target)}; the config has {listed(known)}")
        rules = self.rules(base)
        if reset:
            return None if rules == [rule] else [rule]
        same = next((known for known in rules if known.get("ruleTag") == tag), None)
        if same is None:
            if len(rules) >= len(configured_rules(base)) + ADDED_MAX:
                raise InvalidRequestError(f"too many routing rules: {ADDED_MAX} beside those of the config are allowed")
            return [*rules, rule]
        if same != rule:
            raise InvalidRequestError(
                f"duplicate ruleTag {shown(tag)}: remove that rule first, or give this one another tag"
            )
        return None

    def removed(self, base: BaseConfig, tag: str) -> list[Rule]:
        """Plan the removal of a rule.

        Args:
            base: The config that runs.
            tag: The rule's tag.

        Returns:
            The panel's rules without it.

        Raises:
            NotFoundError: There is no such rule.
            InvalidRequestError: It is the node's own.
        """
        if any(tag == own.get("ruleTag") for own in own_rules(base)):
            raise InvalidRequestError(f"routing rule {shown(tag)} is the node's own and stays")
        rules = self.rules(base)
        left = [rule for rule in rules if rule.get("ruleTag") != tag]
        if len(left) == len(rules):
            raise NotFoundError(f"routing rule {shown(tag)} not found.")
        return left


def _read(fields: Mapping[str, str]) -> tuple[str, list[Rule] | None, dict[str, str]]:
    """Return hash, rules and targets. Raises ValueError."""
    try:
        base, overrides = fields.get("base", ""), json.loads(fields.get("overrides", "{}"))
        rules = json.loads(fields["rules"]) if "rules" in fields else None
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not (isinstance(base, str) and (rules is None or _are_rules(rules)) and _are_texts(overrides)):
        raise ValueError("it holds no rules or no targets")
    return base, rules, overrides


def _are_rules(found: object) -> bool:
    """Whether this is a list of rules, so far as it can be told without compiling them."""
    return isinstance(found, list) and all(
        isinstance(rule, dict) and any(isinstance(rule.get(key), str) for key in ("outboundTag", "balancerTag"))
        for rule in found
    )


def _are_texts(found: object) -> bool:
    return isinstance(found, dict) and all(isinstance(value, str) for value in found.values())


def tagged(rule: Rule) -> Rule:
    """Return the rule with a tag: its own, or one made from its content, so that the same rule gets the same tag."""
    if rule.get("ruleTag"):
        return rule
    canonical = json.dumps({key: value for key, value in rule.items() if key != "ruleTag"}, sort_keys=True)
    return {**rule, "ruleTag": TAG_PREFIX + hashlib.sha256(canonical.encode()).hexdigest()[:12]}


def own_rules(base: BaseConfig) -> list[Rule]:
    """Return the node's own rules, which stand in front of the panel's."""
    return [rule for rule in _rules_of(base) if rule.get("ruleTag") == GUARD_RULE_TAG]


def configured_rules(base: BaseConfig) -> list[Rule]:
    """Return the panel's rules as the config has them."""
    return [rule for rule in _rules_of(base) if rule.get("ruleTag") != GUARD_RULE_TAG]


def _rules_of(base: BaseConfig) -> list[Rule]:
    return base.document["routing"].get("rules") or []


def balancer_tags(base: BaseConfig) -> list[str]:
    """Return the tags of the config's balancers."""
    return balancer_names(base.document)


def outbound_tags(base: BaseConfig) -> list[str]:
    """Return the tags of everything that traffic can be sent to: outbounds, and what reverse proxies offer as such."""
    return outbound_names(base.document)


def default_outbound(base: BaseConfig) -> str:
    """Return where a connection goes that no rule decides about: the first outbound. Empty when that has no tag."""
    outbounds = base.document.get("outbounds") or []
    return str(outbounds[0].get("tag") or "") if outbounds else ""
