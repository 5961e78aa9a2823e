"""docs/configuration.md says what the settings say."""

from __future__ import annotations

import re

from pgnode.errors import OperatorError
from pgnode.settings.document import markdown
from pgnode.settings.model import Settings


def test_every_setting_has_a_row_with_its_type_and_default() -> None:
    text = markdown()
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", text, re.MULTILINE))
    assert set(rows) == {name.upper() for name in Settings.model_fields}
    assert rows["SERVICE_PORT"].startswith("integer | `62050` | ")
    assert rows["SERVICE_PROTOCOL"].startswith('"both", "rest", "grpc", "none" | `both` | ')
    assert rows["API_KEY"].startswith("string | unset | ")
    assert rows["DEBUG"].startswith("boolean | `false` | ")
    assert rows["STATE_DIR"].startswith("path | `$XDG_STATE_HOME/pgnode` or ")


def test_every_exit_code_has_a_row() -> None:
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", markdown(), re.MULTILINE)]
    assert codes == sorted({0, 1, 130, *(error.exit_code for error in OperatorError.__subclasses__())})
