"""The node and the core offer what maintenance needs of them; mypy checks how."""

from __future__ import annotations

import pytest

from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.lifecycle.node import Node
from pgnode.supervisor.maintenance.node_port import MaintainedNode, SelectableCore


@pytest.mark.parametrize(("port", "real"), [(MaintainedNode, Node), (SelectableCore, CoreController)])
def test_the_real_ones_have_what_the_port_names(port: type, real: type) -> None:
    names = [name for name in vars(port) if not name.startswith("_")]
    assert names
    # An attribute that a constructor sets is no attribute of the class.
    assert [name for name in names if not hasattr(real, name) and name != "core_lock"] == []
