"""The table of the pages for monitors: HTTP routes and documents are made from it. Pure.

They are on API_PORT, and without a key on METRICS_PORT where that is set.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Page(NamedTuple):
    """One page."""

    path: str
    #: The method of :class:`~pgnode.api.service.observation.Observation` that answers; its name where calls are counted.
    name: str
    #: METRICS_KEY opens it, too.
    with_metrics_key: bool
    #: One sentence for the documents.
    summary: str
    #: What 503 means; "" where that is never answered.
    unwell: str = ""
    http_method: str = "GET"
    takes_body: bool = False
    group: str = "read"


#: All pages.
PAGES: Final = (
    Page("/metrics", "metrics", True, "Metrics, as a text of Prometheus or OpenMetrics, the same from every worker."),
    Page("/livez", "live", True, "Whether this worker answers."),
    Page(
        "/readyz",
        "ready",
        True,
        'Whether the node is ready for callers, and why not: `{"ready": false, "because": […]}`.',
        "The node is not ready",
    ),
    Page(
        "/health",
        "health",
        False,
        'Whether a core serves users, and the state of the node: `{"core_up": true, "state": "running"}`.',
        "No core serves users",
    ),
)
