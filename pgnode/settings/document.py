"""docs/configuration.md, made from the settings and the exit codes as they are declared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from pgnode.errors import OperatorError
from pgnode.settings.model import Settings

_HEAD = """# Configuration

Every setting is an environment variable; a `.env` file in the working folder is read too, and the environment wins.
A wrong value ends the start with a sentence that names the variable, the value and what is allowed.
A running node takes changes of `.env` at `pgnode reload`, which says which of them wait for the next core; `STATE_DIR`,
`REDIS_URL` and `REDIS_PREFIX` need a stop and a start.
This page is generated: `make docs`.

| variable | type | default | meaning |
| --- | --- | --- | --- |
"""

_EXIT_CODES = """
## Exit codes of `pgnode run`

| code | meaning |
| --- | --- |
| 0 | ended on SIGTERM or SIGINT |
| 1 | an error that has no code of its own |
"""

_SECOND_SIGNAL = "| 130 | ended at once on a second signal |\n"


def markdown() -> str:
    """Return the text of docs/configuration.md."""
    properties = Settings.model_json_schema()["properties"]
    rows = [
        f"| `{name.upper()}` | {_type(properties[name])} | {_default(name, field)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    ]
    return _HEAD + "".join(rows) + _EXIT_CODES + "".join(_exit_code_rows()) + _SECOND_SIGNAL


def _type(schema: dict[str, Any]) -> str:
    """Name the type of a setting, or list its values where they are few."""
    options = schema.get("anyOf", [schema])
    kinds = [
        ", ".join(f'"{value}"' for value in option["enum"])
        if "enum" in option
        else str(option.get("format", option["type"]))
        for option in options
        if option["type"] != "null"
    ]
    return " or ".join(kinds)


def _default(name: str, field: FieldInfo) -> str:
    if name == "state_dir":
        return "`$XDG_STATE_HOME/pgnode` or `~/.local/state/pgnode`"
    if field.default is None:
        return "unset"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _exit_code_rows() -> Iterator[str]:
    """List the exit codes that errors have, with the first sentence of each error."""
    meanings: dict[int, list[str]] = defaultdict(list)
    for error in OperatorError.__subclasses__():
        if "exit_code" in vars(error):
            assert error.__doc__ is not None
            sentence = error.__doc__.splitlines()[0].rstrip(".")
            meanings[error.exit_code].append(sentence[0].lower() + sentence[1:])
    for code, sentences in sorted(meanings.items()):
        yield f"| {code} | {'; or '.join(sentences)} |\n"
