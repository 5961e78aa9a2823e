"""Parsing a panel's config, and rendering it with users."""

from __future__ import annotations

import json

import pytest

from pgnode.errors import StartFailedError
from pgnode.xray.config.document import PLACEHOLDER_EMAIL, kept_config, render, unknown_config
from tests.unit.xray.config.configs import USER_ID, config, parse, sample, vless


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "config is not valid JSON: Expecting value at line 1, column 1"),
        ('{"inbounds": [}', "config is not valid JSON: Expecting value at line 1, column 15"),
        ('{\n // note\n "inbounds": [],,}', "at line 3, column 17"),
        ('{"a": NaN}', "NaN is no JSON value"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "config must be a JSON object, not a list"),
        ("{}", "config has no inbounds"),
        ('{"inbounds": []}', "config has no inbounds"),
        ('{"inbounds": [{"tag": "API_INBOUND"}]}', "config has no inbounds"),
        ('{"inbounds": {}}', "inbounds must be a list, not an object"),
        ('{"inbounds": [1]}', "inbounds[0] must be an object, not a number"),
        ('{"inbounds": [{"tag": 5}]}', "inbound #1: tag must be a string, not a number"),
        ('{"inbounds": [{"tag": "\\ud800"}]}', "half a surrogate pair"),
        ('{"inbounds": [{"tag": "a", "protocol": "vless"}, {"tag": "a"}]}', "two inbounds with the tag 'a'"),
        (
            '{"inbounds": [{"tag": "a", "protocol": "vless", "settings": []}]}',
            "inbound 'a': settings must be an object",
        ),
        ('{"inbounds": [{"tag": "a"}], "policy": []}', "policy must be an object, not a list"),
        ('{"inbounds": [{"tag": "a"}], "policy": {"levels": {"0": 1}}}', "policy.levels.0 must be an object"),
        ('{"inbounds": [{"tag": "a"}], "routing": {"rules": {}}}', "routing.rules must be a list"),
        ('{"inbounds": [{"tag": "a"}], "log": {"access": 1}}', "log.access must be a string"),
        (
            '{"inbounds": [{"tag": "a"}], "routing": {"rules": [{"domain": ["geosite:ads"]}]}}',
            "geo file 'geosite.dat' is missing ('geosite:ads' needs it); looked in /usr/local/share/xray",
        ),
    ],
)
def test_unusable_configs_are_refused_with_the_cause_first(text: str, cause: str) -> None:
    with pytest.raises(StartFailedError) as caught:
        parse(text)
    assert cause in str(caught.value)[:128]


def test_comments_are_accepted_but_not_inside_strings() -> None:
    text = '{ // one\n "inbounds": /* two */ [{"tag": "a//b /* c */ # d", "protocol": "vless"}] # three\n}'
    assert [spec.tag for spec in parse(text).inbounds] == ["a//b /* c */ # d"]


def test_what_changes_the_hash() -> None:
    base = parse(config()).base_hash
    assert len(base) == 64
    assert parse(config(), socket_path="/elsewhere").base_hash == base
    assert parse({key: config()[key] for key in ("outbounds", "inbounds")}).base_hash == base
    with_clients = vless(settings={"decryption": "none", "clients": [{"id": USER_ID, "email": "a"}]})
    assert parse(config(inbounds=[with_clients])).base_hash == base
    assert parse(config(inbounds=[with_clients]), exclude=("in",)).base_hash != base
    assert parse(config(), exclude=("in",)).base_hash != base
    assert parse(config(inbounds=[vless(port=20001)])).base_hash != base
    assert parse(config(unknown=1)).base_hash != base


def test_a_config_is_made_again_of_its_parts() -> None:
    base = parse(sample("wide"), exclude=("Static clients",))
    kept = kept_config(
        base.document,
        base_hash="of an earlier version",
        managed=list(base.managed_inbounds),
        api_socket="/moved/core.sock",
        access_log_path=base.access_log_path,
        error_log_path=base.error_log_path,
        observed_outbound_exclusions=list(base.observed_outbound_exclusions),
    )
    assert (kept.base_hash, kept.managed_inbounds) == ("of an earlier version", base.managed_inbounds)
    assert kept.document == {**base.document, "api": {**base.document["api"], "listen": "/moved/core.sock"}}
    assert unknown_config("hash").base_hash == "hash"


def test_render_puts_in_what_it_is_given() -> None:
    base = parse(sample("wide"), exclude=("Static clients",))
    clients = {tag: [f'{{"email":"{tag}-{n}"}}' for n in range(3)] for tag in base.managed_inbounds}
    rendered = json.loads(render(base, clients))
    for inbound in rendered["inbounds"]:
        expected = clients.get(inbound["tag"], ['{"id":"%s","email":"static@node"}' % USER_ID])  # noqa: UP031
        assert inbound["settings"]["clients"] == [json.loads(client) for client in expected]
    with pytest.raises(KeyError, match="Static clients"):
        render(base, {"Static clients": []})


def test_an_empty_shadowsocks_2022_inbound_gets_a_placeholder_with_a_new_key() -> None:
    base = parse(sample("wide"))
    keys = []
    for _ in range(2):
        inbound = next(i for i in json.loads(render(base, {}))["inbounds"] if i["tag"] == "Shadowsocks 2022")
        assert [client["email"] for client in inbound["settings"]["clients"]] == [PLACEHOLDER_EMAIL]
        keys.append(inbound["settings"]["clients"][0]["password"])
    assert keys[0] != keys[1]


@pytest.mark.parametrize(("levels", "taken"), [(90, True), (110, False), (900, False)])
def test_a_config_may_be_nested_only_so_deep(levels: int, taken: bool) -> None:
    text = json.dumps(config())[:-1] + ', "x": ' + "[" * levels + "]" * levels + "}"
    if taken:
        parse(text)
        return
    with pytest.raises(StartFailedError, match="nested too deeply"):
        parse(text)
