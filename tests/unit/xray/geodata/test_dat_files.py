"""The outer form of geo files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.xray.geodata.dat_files import GeoKind, NoGeoFileError, read_geo_codes
from tests.support import geo_data

GEOIP = geo_data.geoip({"ir": ["192.0.2.0/24", "2001:db8::/32"], "private": ["10.0.0.0/8"], "empty": []})
GEOSITE = geo_data.geosite({"ir": ["example.ir"] * 50, "category-ads": ["ads.example"], "empty": []})


def test_codes() -> None:
    assert read_geo_codes(GEOIP, "geoip") == ["IR", "PRIVATE", "EMPTY"]
    assert read_geo_codes(GEOSITE, "geosite") == ["IR", "CATEGORY-ADS", "EMPTY"]


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", "geoip", "empty"),
        (b"<html>", "geoip", "an entry is missing at byte 0"),
        (GEOSITE, "geoip", "an address"),
        (GEOIP, "geosite", "no geosite file"),
        (GEOIP + b"\n", "geoip", "cut off"),
        (b"\n\x04\n\x02\xff\xfe", "geoip", "no text"),
        (b"\n\x02\n\x00", "geoip", "empty code"),
        (b"\n\x00", "geoip", "a code is missing"),
    ],
)
def test_what_is_no_geo_file(data: bytes, kind: GeoKind, words: str) -> None:
    with pytest.raises(NoGeoFileError, match=words):
        read_geo_codes(data, kind)


@given(st.sampled_from([GEOIP, GEOSITE]), st.integers(1, len(GEOSITE)))
def test_a_file_that_was_cut_has_fewer_codes_or_is_refused(data: bytes, size: int) -> None:
    kind: GeoKind = "geoip" if data is GEOIP else "geosite"
    whole = read_geo_codes(data, kind)
    cut = data[:size]
    try:
        found = read_geo_codes(cut, kind)
    except NoGeoFileError:
        found = []
    assert found == whole[: len(found)]
    assert len(cut) == len(data) or len(found) < len(whole)


@given(st.binary(max_size=200), st.sampled_from(["geoip", "geosite"]))
def test_any_bytes_end_in_codes_or_a_sentence(data: bytes, kind: GeoKind) -> None:
    try:
        assert all(read_geo_codes(data, kind))
    except NoGeoFileError as error:
        said = str(error)
    else:
        said = "no error"
    assert said.startswith("no ")
