"""Names that look like settings."""

from __future__ import annotations

import pytest

from pgnode.settings.unknown import sentences_about_unknown

KNOWN = ["SERVICE_PORT", "SERVICE_PROTOCOL", "API_PORT", "SSL_CERT_FILE", "STATE_DIR"]


@pytest.mark.parametrize(
    ("in_file", "in_environment", "told"),
    [
        (["SERVICE_PORT"], ["PATH", "HOME", "SSL_CERT_DIR", "NIX_SSL_CERT_FILE", "API_PORT"], []),
        (["SERVICE_PROT"], ["SERVICE_PROT"], ["SERVICE_PROT in .env means nothing here: did you mean SERVICE_PORT?"]),
        (["COLOUR"], [], ["COLOUR in .env means nothing here"]),
        ([], ["STATEDIR"], ["STATEDIR in the environment means nothing here: did you mean STATE_DIR?"]),
        ([], ["service_port"], []),
    ],
)
def test_what_is_told(in_file: list[str], in_environment: list[str], told: list[str]) -> None:
    assert list(sentences_about_unknown(in_file, in_environment, KNOWN)) == told
