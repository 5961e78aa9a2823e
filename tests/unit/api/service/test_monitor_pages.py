"""The table of the pages for monitors fits what answers them."""

from __future__ import annotations

import inspect

from pgnode.api.service.maintenance_calls import CALLS
from pgnode.api.service.monitor_pages import PAGES
from pgnode.api.service.observation import Observation


def test_each_page_has_somebody_who_answers_it() -> None:
    for page in PAGES:
        assert inspect.iscoroutinefunction(getattr(Observation, page.name)), page.path
        assert page.summary.endswith(".")


def test_no_two_have_one_path() -> None:
    paths = [page.path for page in PAGES] + [call.path for call in CALLS]
    assert len(set(paths)) == len(paths)


def test_the_metrics_key_opens_nothing_about_users() -> None:
    assert {page.path for page in PAGES if page.with_metrics_key} == {"/metrics", "/livez", "/readyz"}
