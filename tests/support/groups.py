"""Which tests run in one process, where several run side by side."""

from __future__ import annotations

from pathlib import Path

#: Modules that start cores on the ports of the samples.
_SAMPLE_PORTS = {"test_config_core", "test_core", "test_corpus", "test_diagnose", "test_scratch"}


def group_of(nodeid: str, *, isolated: bool) -> str:
    """Name the group of a test: its module, since many share a node or a core.

    Args:
        nodeid: What pytest calls the test.
        isolated: Whether each process has a network of its own. Otherwise those that would meet on a port are one group.
    """
    module = nodeid.partition("::")[0]
    return "sample ports" if not isolated and Path(module).stem in _SAMPLE_PORTS else module
