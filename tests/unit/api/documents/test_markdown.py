"""docs/api.md names everything that can be called and answered."""

from __future__ import annotations

from pgnode.api.documents.markdown import api_page
from pgnode.api.methods import METHODS
from pgnode.api.service.maintenance_calls import CALLS
from pgnode.errors import BY_CODE


def test_the_page_names_every_method_and_every_error() -> None:
    page = api_page()
    for row in METHODS:
        assert f"| `{row.grpc_name}` | `{row.http_method} {row.path}` |" in page
    for call in CALLS:
        assert f"| `{call.http_method} {call.path}` | {call.summary} |" in page
    for code in BY_CODE:
        assert f"| `{code}` |" in page
