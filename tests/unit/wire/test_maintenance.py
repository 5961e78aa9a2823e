"""Bodies of the maintenance API: what is taken, and what every refusal says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.errors import InvalidRequestError
from pgnode.wire.maintenance import REGIONS, core_version_of, object_of, region_of, text_of

VERSION = st.tuples(*[st.integers(0, 9999)] * 3).map(lambda parts: ".".join(map(str, parts)))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"core_version": ', ["malformed JSON", "line 1 column 18"]),
        (b"core_version=latest", ["malformed JSON", "column 1"]),
        (b'{"core_version": "\xff"}', ["malformed JSON", "UTF-8"]),
        (b"[" * 100_000, ["malformed JSON"]),
        (b'{"core_version": ' + b"9" * 10_000 + b"}", ["malformed JSON"]),
        (b'["latest"]', ["a list", "object"]),
        (b"null", ["null", "object"]),
        (b'{"version": "latest"}', ["'version'", "core_version"]),
        (b"{}", ["core_version is missing"]),
        (b"", ["core_version is missing"]),
        (b'{"core_version": 26}', ["core_version is a number"]),
        (b'{"core_version": null}', ["core_version is null"]),
        (b'{"core_version": ["latest"]}', ["core_version is a list"]),
        (b'{"core_version": true}', ["core_version is a boolean"]),
        (b'{"core_version": ""}', ["core_version ''", "latest", "26.10.10"]),
        (b'{"core_version": "newest"}', ["'newest'", "latest", "26.10.10"]),
        (b'{"core_version": "26.10.10/../../x"}', ["26.10.10/../../x", "known are"]),
        (b'{"core_version": "26.10.10; reboot"}', ["reboot", "known are"]),
        (b'{"core_version": "\\u0662\\u0666.1.1"}', ["known are"]),
    ],
)
def test_what_is_wrong_with_a_core_version_is_said(body: bytes, words: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        core_version_of(text_of(object_of(body, ["core_version"]), "core_version"))
    assert all(word in caught.value.text for word in words), caught.value.text
    assert len(caught.value.text) < 200


@given(VERSION, st.sampled_from(["", "v"]), st.sampled_from(["", " "]))
def test_versions_are_taken_with_and_without_their_letter(version: str, letter: str, blank: str) -> None:
    body = json.dumps({"core_version": f"{blank}{letter}{version}{blank}"}).encode()
    assert core_version_of(text_of(object_of(body, ["core_version"]), "core_version")) == version
    assert core_version_of("Latest") == "latest"


@given(st.text())
def test_any_other_text_is_refused_in_one_sentence(text: str) -> None:
    for of in (core_version_of, region_of):
        said = ""
        try:
            taken = of(text)
        except InvalidRequestError as error:
            said = error.text
        else:
            assert taken in text.lower()
        assert said == "" or ("known are" in said and len(said) < 300)


def test_regions() -> None:
    assert [region_of(region.upper()) for region in REGIONS] == list(REGIONS)
    with pytest.raises(InvalidRequestError, match="region 'mars' is not known: known are iran, china, russia"):
        region_of("mars")


def test_calls_without_fields_take_nothing_and_an_empty_object() -> None:
    assert object_of(b"", []) == object_of(b" {} ", []) == {}
    with pytest.raises(InvalidRequestError, match="'force': this call takes none"):
        object_of(b'{"force": true}', [])
