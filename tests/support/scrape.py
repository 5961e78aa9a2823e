"""Metrics as a monitor sees them: read again and again, over TLS and with the key, and no counter may fall."""

from __future__ import annotations

import ssl

import httpx
from prometheus_client.parser import text_string_to_metric_families

from pgnode.testing.node import NodeProcess

#: A sample: its name, and its labels.
Key = tuple[str, frozenset[tuple[str, str]]]

SCRAPE_SECONDS = 30.0


async def scrape(node: NodeProcess) -> dict[Key, float]:
    """Every sample of one scrape, with its value. httpx.HTTPError where nobody answers."""
    tls = ssl.create_default_context(cafile=str(node.ca_file))
    url = f"https://{node.host}:{node.api_port}/metrics"
    async with httpx.AsyncClient(verify=tls, trust_env=False, timeout=SCRAPE_SECONDS) as client:
        answer = await client.get(url, headers={"x-api-key": node.api_key})
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in text_string_to_metric_families(answer.text)
        for sample in metric.samples
    }


class Monitor:
    """Scrapes a node."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self.scrapes = 0
        self._last: dict[Key, float] = {}

    async def scrape(self) -> None:
        """Scrape once, where somebody answers; no counter is below what it was."""
        try:
            found = await scrape(self._node)
        except httpx.HTTPError:
            return
        fallen = {
            key: (before, found[key])
            for key, before in self._last.items()
            if key[0].endswith(("_total", "_bucket", "_count")) and found.get(key, before) < before
        }
        assert not fallen
        self._last |= found
        self.scrapes += 1

    def sum(self, name: str) -> float:
        """The values of all series of a name together, as of the last scrape."""
        return sum(value for key, value in self._last.items() if key[0] == name)
