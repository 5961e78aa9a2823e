"""The config a panel sends, made into the config the node's core runs: parsed, rewritten, and rendered with users.

The panel's config is a whole Xray config as JSON. The node owns some parts of it (:mod:`pgnode.xray.config.rewrite`) and the
users of the managed inbounds; the rest stays as it came, unknown keys and the order of keys included. Everything here is
pure, apart from a look at which geo files exist.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

from pgnode.errors import StartFailedError
from pgnode.wire.json_depth import is_too_deep
from pgnode.xray.config import geo_refs as geo
from pgnode.xray.config import rewrite
from pgnode.xray.config.inbounds import InboundSpec, json_type, read_inbound, short
from pgnode.xray.config.listeners import Claim, claims_of
from pgnode.xray.config.names import target_warnings
from pgnode.xray.config.numbering import Numbers, number_parts
from pgnode.xray.config.protocols import INBOUND_PROTOCOLS
from pgnode.xray.config.strings import text_fault

__all__ = ["PLACEHOLDER_EMAIL", "BaseConfig", "InboundSpec", "parse_config", "recut", "render", "with_rules"]

#: User that stands in a Shadowsocks-2022 inbound while it has no others, with a random key that nobody is told. Without
#: any client the core builds the kind of inbound that can never take users ("proxy is not a UserManager"); once it runs,
#: the placeholder can be removed through the API like any user.
PLACEHOLDER_EMAIL: Final = "placeholder@pg-node"

#: A string or a comment; the core takes ``//``, ``/* */`` and ``#`` (xray-core ``infra/conf/json/reader.go``).
_STRING_OR_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*+"|//[^\n]*|#[^\n]*|/\*.*?\*/', re.DOTALL)


@dataclass(frozen=True, slots=True)
class BaseConfig:
    """A rewritten config without the users of the managed inbounds, ready to be rendered for the core."""

    #: The rewritten config; the clients of managed inbounds are empty lists. Not to be changed.
    document: dict[str, Any] = field(repr=False)
    #: In the order of the config.
    inbounds: tuple[InboundSpec, ...]
    #: SHA-256 (hex) of what makes the core differ; users, ``log`` and the path of the API socket left out. The order of keys,
    #: white space and comments do not change it.
    base_hash: str
    #: Files the panel wants the core's access and error lines in; the node writes them. None = no such file.
    access_log_path: str | None
    error_log_path: str | None
    #: Tags of outbounds that are never observed; the latency answer leaves them out, too.
    observed_outbound_exclusions: frozenset[str]
    #: What was changed or will not work, one sentence each, for the node's log.
    warnings: tuple[str, ...]
    #: Places of the parts in the panel's own lists.
    numbers: Numbers = field(repr=False, compare=False)
    #: JSON around the lists of users of ``_managed_tags``: one piece more than there are tags.
    _pieces: tuple[str, ...] = field(repr=False, compare=False)
    _managed: tuple[InboundSpec, ...] = field(repr=False, compare=False)

    @property
    def managed_inbounds(self) -> dict[str, InboundSpec]:
        """Inbounds whose users the node owns, by tag."""
        return {spec.tag: spec for spec in self._managed}

    @property
    def claims(self) -> list[Claim]:
        """What the core binds."""
        return claims_of(self.inbounds, self.document.get("metrics"))


def parse_config(
    text: str,
    *,
    exclude_inbounds: Collection[str],
    api_socket: str,
    assets_dir: Path | None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> BaseConfig:
    """Read a panel's config and rewrite it for this node.

    ``exclude_inbounds``: tags whose clients stay the panel's. ``api_socket``: path of the unix socket for the core's API.
    ``assets_dir``: folder with geo files (XRAY_ASSETS_PATH). ``environment``: the core's, for ports and addresses from there.
    Raises StartFailedError; its text begins with the cause (callers see 128 characters).
    """
    document = load_document(text)
    fault = text_fault(text, document)
    if fault is not None:
        raise StartFailedError(fault)
    warnings: list[str] = []
    rewrite.canonical_keys(document)
    numbers = number_parts(document)
    rewrite.set_api(document, api_socket)
    inbounds = rewrite.objects(document, "inbounds")
    if not inbounds:
        raise StartFailedError("config has no inbounds")
    places = numbers.of(document)["inbounds"]
    specs = tuple(
        read_inbound(inbound, number, exclude_inbounds, warnings, environment)
        for inbound, number in zip(inbounds, places, strict=True)
    )
    _refuse_duplicate_tags(specs)
    rewrite.set_statistics(document)
    access_log_path, error_log_path = rewrite.take_log_paths(document)
    rewrite.set_rules(document, warnings)
    exclusions = rewrite.limit_observatories(document, warnings)
    warnings += target_warnings(document, numbers.of(document))
    missing = geo.missing_geo_files(document, assets_dir)
    if missing is not None:
        raise StartFailedError(missing)

    for inbound, spec in zip(inbounds, specs, strict=True):
        if spec.managed:
            dropped = _empty_clients(inbound, spec)
            if dropped:
                warnings.append(
                    f"inbound {spec.tag!r}: {dropped} clients of the config dropped, the node owns this list"
                )
    return BaseConfig(
        document=document,
        inbounds=specs,
        base_hash=_hash(document, specs),
        access_log_path=access_log_path,
        error_log_path=error_log_path,
        observed_outbound_exclusions=exclusions,
        warnings=tuple(warnings),
        numbers=numbers,
        _pieces=_cut(document, inbounds, specs),
        _managed=tuple(spec for spec in specs if spec.managed),
    )


def kept_config(
    document: dict[str, Any],
    *,
    base_hash: str,
    managed: Collection[str],
    api_socket: str,
    access_log_path: str | None,
    error_log_path: str | None,
    observed_outbound_exclusions: Collection[str],
) -> BaseConfig:
    """Make a base config again of its parts, as an earlier node kept them: this one might rewrite the panel's config differently.

    ``managed``: tags of the inbounds whose users the node owns. The other arguments are fields of the config.
    Raises StartFailedError, or whatever else comes of a document that no node wrote.
    """
    document = {**document, "api": {**document["api"], "listen": api_socket}}
    inbounds = rewrite.objects(document, "inbounds")
    unmanaged = {tag for inbound in inbounds if (tag := inbound.get("tag") or "") not in managed}
    numbers = number_parts(document)
    places = numbers.of(document)["inbounds"]
    specs = tuple(
        read_inbound(inbound, number, unmanaged, []) for inbound, number in zip(inbounds, places, strict=True)
    )
    return BaseConfig(
        document=document,
        inbounds=specs,
        base_hash=base_hash,
        access_log_path=access_log_path,
        error_log_path=error_log_path,
        observed_outbound_exclusions=frozenset(observed_outbound_exclusions),
        warnings=(),
        numbers=numbers,
        _pieces=_cut(document, inbounds, specs),
        _managed=tuple(spec for spec in specs if spec.managed),
    )


def unknown_config(base_hash: str) -> BaseConfig:
    """Stand in for the config of a core of which only the hash is known."""
    return BaseConfig({}, (), base_hash, None, None, frozenset(), (), Numbers({}), ("{}",), ())


def with_rules(base: BaseConfig, rules: Sequence[dict[str, Any]]) -> BaseConfig:
    """Make the same base config, ``base_hash`` included, whose core starts with these routing rules."""
    return recut(
        replace(base, document={**base.document, "routing": {**base.document["routing"], "rules": list(rules)}})
    )


def recut(base: BaseConfig) -> BaseConfig:
    """Return a base config whose document was changed, ready to be rendered again."""
    return replace(base, _pieces=_cut(base.document, base.document["inbounds"], base.inbounds))


def render(base: BaseConfig, clients_by_tag: Mapping[str, Sequence[str]]) -> str:
    """Render the config for the core, as JSON, with users in the managed inbounds.

    ``clients_by_tag``: for each managed inbound its clients, each as a JSON object already
    (:func:`pgnode.xray.config.accounts.client_json`); an inbound without an entry has no users. Entries of other inbounds are an
    error of the caller: KeyError. A Shadowsocks-2022 inbound without users gets :data:`PLACEHOLDER_EMAIL`.
    """
    unknown = clients_by_tag.keys() - base.managed_inbounds.keys()
    if unknown:
        raise KeyError(f"not a managed inbound: {sorted(unknown)[0]!r}")
    parts = [base._pieces[0]]
    for spec, piece in zip(base._managed, base._pieces[1:], strict=True):
        clients = clients_by_tag.get(spec.tag, ())
        if not clients and spec.is_shadowsocks_2022:
            clients = (_placeholder(spec),)
        parts.append(",".join(clients))
        parts.append(piece)
    return "".join(parts)


def with_api_socket(config_json: str, api_socket: Path) -> str:
    """Return a rendered config with its API on another unix socket."""
    document = json.loads(config_json)
    document["api"]["listen"] = str(api_socket)
    return json.dumps(document)


def _placeholder(spec: InboundSpec) -> str:
    key = base64.b64encode(secrets.token_bytes(spec.key_bytes)).decode()
    return json.dumps({"email": PLACEHOLDER_EMAIL, "password": key})


def load_document(text: str) -> dict[str, Any]:
    """Parse a config, which may hold comments. Raises StartFailedError; its text begins with the cause."""
    try:
        document = _parse(text)
    except json.JSONDecodeError as plain_error:
        try:
            document = _parse(_STRING_OR_COMMENT.sub(_blank_comment, text))
        except json.JSONDecodeError as error:
            # Comments are blanked, not cut, so the position is that of the text as it came.
            shown = error if error.pos >= plain_error.pos else plain_error
            raise StartFailedError(
                f"config is not valid JSON: {shown.msg} at line {shown.lineno}, column {shown.colno}"
            ) from None
    if not isinstance(document, dict):
        raise StartFailedError(f"config must be a JSON object, not {json_type(document)}")
    if is_too_deep(document):
        raise StartFailedError("config is not valid JSON: nested too deeply")
    return document


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise StartFailedError("config is not valid JSON: nested too deeply") from None
    except ValueError as error:
        # NaN and its like, or a number of thousands of digits.
        raise StartFailedError(f"config is not valid JSON: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _blank_comment(match: re.Match[str]) -> str:
    found = match[0]
    return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)


def _refuse_duplicate_tags(specs: Sequence[InboundSpec]) -> None:
    seen: set[str] = set()
    for spec in specs:
        if spec.tag and spec.tag in seen:
            raise StartFailedError(f"config has two inbounds with the tag {short(spec.tag)}: tags must differ")
        seen.add(spec.tag)


def _list_key(spec: InboundSpec) -> str:
    """Return the name of the list of users in the settings of a managed inbound."""
    traits = INBOUND_PROTOCOLS[spec.protocol].users
    assert traits is not None, "without users it is not managed"
    return traits.list_key


def _empty_clients(inbound: dict[str, Any], spec: InboundSpec) -> int:
    """Make the list of clients empty; returns how many there were."""
    settings = inbound.get("settings")
    if settings is None:
        settings = inbound["settings"] = {}
    key = _list_key(spec)
    lists = [settings.get(key), settings.pop("users", None)]
    # An empty list, not a missing one: without any the core takes Shadowsocks for the single-user kind.
    settings[key] = []
    return sum(len(clients) for clients in lists if isinstance(clients, list)) - _is_placeholder_list(lists[0])


def _is_placeholder_list(clients: object) -> bool:
    return (
        isinstance(clients, list)
        and len(clients) == 1
        and isinstance(clients[0], dict)
        and clients[0].get("email") == PLACEHOLDER_EMAIL
    )


def _hash(document: dict[str, Any], specs: Sequence[InboundSpec]) -> str:
    without_socket = {**document, "api": {**document["api"], "listen": ""}}
    # Lines are the node's to pass on, so no core is another one for them.
    without_socket.pop("log", None)
    managed = sorted(spec.tag for spec in specs if spec.managed)
    canonical = json.dumps([without_socket, managed], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _cut(document: dict[str, Any], inbounds: Sequence[dict[str, Any]], specs: Sequence[InboundSpec]) -> tuple[str, ...]:
    """Encode the document as JSON, cut where the clients of each managed inbound go."""
    # Random, so that nothing the panel sends can hold it.
    marker = secrets.token_hex(16)
    shown = [
        {**inbound, "settings": {**inbound["settings"], _list_key(spec): [marker]}} if spec.managed else inbound
        for inbound, spec in zip(inbounds, specs, strict=True)
    ]
    text = json.dumps({**document, "inbounds": shown}, separators=(",", ":"))
    return tuple(text.split(f'"{marker}"'))
