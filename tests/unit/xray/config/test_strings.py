"""Texts of a config: those that are none, and those that lead users to the node's own sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgnode.errors import StartFailedError
from pgnode.xray.config.strings import own_socket_fault, strings, text_fault, zero_fault
from tests.unit.xray.config.configs import config, parse, vless


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (
            {"outbounds": [{"tag": "\ud800", "protocol": "freedom"}]},
            "config: outbounds[0].tag holds half a surrogate pair",
        ),
        ({"outbounds": [{"protocol": "a\udfffb"}]}, "config: outbounds[0].protocol holds half"),
        ({"outbounds": [{"tag": "D", "settings": {"a": "\ud800"}}]}, "outbound 'D': settings.a holds half"),
        ({"log": {"access": "/var/log/a\0b"}}, "config: log.access holds a NUL"),
        ({"log": {"error": "\ud800"}}, "config: log.error holds half"),
        ({"routing": {"rules": [{"ruleTag": "\udc00"}]}}, "config: routing.rules[0].ruleTag holds half"),
        ({"dns": {"\ud800": 1}}, "config: a key in dns holds half"),
        ({"\ud800": 1}, "config: a key in it holds half"),
        ({"": {"outbounds": [{"tag": "\ud800"}]}}, "config: ''.outbounds[0].tag holds half"),
        ({"outbounds[7].tag": "\ud800"}, "config: outbounds[7].tag holds half"),
    ],
)
def test_what_is_no_text_is_refused_by_its_place(change: dict[str, Any], place: str) -> None:
    with pytest.raises(StartFailedError) as caught:
        parse(config(**change))
    assert caught.value.text.startswith(place)
    caught.value.text.encode()


@pytest.mark.parametrize("text", ["\U0001f600", "line\nbreak", "é", "\\ud800 as letters"])
def test_other_texts_are_taken(text: str) -> None:
    document = config(dns={"tag": text})
    assert text_fault(json.dumps(document), document) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "text",
    [
        "{folder}/core.sock",
        "{folder}",
        "{folder}/../run/core.sock",
        "/{folder}//core.sock",
        "{folder}/core.sock,0666",
        "{folder}/valkey.sock:1",
        "unix:{folder}/core.sock",
        "{parent}/link/core.sock",
        "/proc/self/root{folder}/core.sock",
        "/proc/self/cwd{folder}/core.sock",
        "/proc/./thread-self//cwd/..{folder}/core.sock",
        "/tmp/../proc/self/root/proc/self/cwd{folder}/core.sock:1",
    ],
)
def test_the_nodes_own_sockets_are_no_destination(folder: Path, text: str) -> None:
    path = text.format(folder=folder, parent=folder.parent)
    places: list[dict[str, Any]] = [
        {"inbounds": [vless(settings={"decryption": "none", "fallbacks": [{"dest": path}]})]},
        {"inbounds": [vless(listen=path)]},
        {"inbounds": [{"tag": "t", "protocol": "tunnel", "port": 1, "settings": {"address": path}}]},
        {"outbounds": [{"tag": "f", "protocol": "freedom", "settings": {"redirect": path}}]},
        {"outbounds": [{"tag": "f", "protocol": "socks", "settings": {"servers": [{"address": path}]}}]},
    ]
    for change in places:
        fault = own_socket_fault(config(**change), folder)
        assert fault is not None
        assert "the node's own folder of sockets" in fault
        assert fault.startswith(("inbound 'in': ", "inbound 't': settings", "outbound 'f': settings.")), fault


@pytest.mark.parametrize(
    "shown",
    [
        "/",
        "{parent}",
        "{parent}/tls",
        "{folder}",
        "{above}",
        # A core works in "/": these lead there.
        "",
        ".",
        "..",
        "./",
        "proc/self/cwd",
        "/proc/self/cwd{parent}/tls",
        ".{parent}",
        "../../..{folder}",
    ],
)
def test_the_nodes_own_files_are_not_shown(folder: Path, shown: str) -> None:
    path = shown.format(folder=folder, parent=folder.parent, above=folder.parent.parent)
    stream = {"hysteriaSettings": {"masquerade": {"type": "file", "dir": path}}}
    fault = own_socket_fault(config(inbounds=[vless(streamSettings=stream)]), folder)
    assert (fault or "").startswith("inbound 'in': streamSettings.hysteriaSettings.masquerade.dir")
    elsewhere = {"hysteriaSettings": {"masquerade": {"dir": f"{folder.parent}-site"}}}
    assert own_socket_fault(config(inbounds=[vless(streamSettings=elsewhere)]), folder) is None


def test_places_are_counted_as_the_panel_counts(folder: Path) -> None:
    rules = {"rules": [{"ruleTag": "the node's own"}, {"webhook": {"url": f"unix:{folder}/core.sock"}}]}
    document = config(routing=rules)
    for numbers, place in (({"routing.rules": (0, 1)}, "rules[0]"), ({}, "rules[1]")):
        fault = own_socket_fault(document, folder, numbers=numbers)
        assert (fault or "").startswith(f"config: routing.{place}.webhook.url ")


def test_other_paths_are(folder: Path) -> None:
    others = [
        f"{folder}ning/x.sock",
        f"{folder.parent}/other.sock",
        "/run/x.sock",
        "https://example.com/run",
        "a/b",
        "/",
    ]
    assert own_socket_fault({"api": {"listen": f"{folder}/core.sock"}, "x": others}, folder) is None


def test_every_text_has_its_place() -> None:
    document = {"a": [{"b": "x"}, "y"], "c": 5}
    assert dict(strings(document))["a[0].b"] == "x"
    assert ("a key in a[0]", "b") in list(strings(document))


def test_a_zero_is_named_wherever_it_stands() -> None:
    document = config(inbounds=[vless(settings={"fallbacks": [{"dest": "/a\0b"}]})], dns={"a": 1})
    assert zero_fault(document) == "inbound 'in': settings.fallbacks[0].dest holds a NUL character"
    assert zero_fault({"dns": {"a\0": 1}}) == "config: a key in dns holds a NUL character"
    assert zero_fault(config(dns={"tag": "\\0 as text"})) is None
