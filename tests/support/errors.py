"""What an answer over REST says is wrong, in either of the forms that errors have."""

from __future__ import annotations

import json

from pgnode.testing.panel import Response


def error_of(answer: Response) -> dict[str, str]:
    """``error`` and ``code`` of an error: plain text with the code in a header, or a JSON object."""
    kind = answer.headers["content-type"]
    if kind == "text/plain; charset=utf-8":
        body = {"error": answer.body.decode(), "code": answer.headers["x-error-code"]}
    else:
        assert kind == "application/json", answer
        assert "x-error-code" not in answer.headers
        body = json.loads(answer.body)
    assert set(body) == {"error", "code"}
    assert body["error"]
    assert body["code"] == body["code"].upper() != ""
    return body
