"""Two rules of the project that no linter knows: who may assign to whose fields, and that no test patches a constant. Pure.

Both go by names, since that is what a reader sees, too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping

_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]+")
#: A constant's name as an argument, beside a function that may patch it.
_NAMED = re.compile(r"""[."']_?[A-Z][A-Z0-9_]+["']\s*[,)]""")
_PATCHES = re.compile(r"\b(setattr|delattr|patch|object)\b")
#: A constant of a module that is assigned to or deleted.
_CHANGED = re.compile(
    r"\._?[A-Z][A-Z0-9_]+\s*(:[^=\n]+)?[-+*/%&|^@<>]{0,2}=(?!=)|\bdel\b[^:=]{0,200}?\._?[A-Z][A-Z0-9_]+"
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

#: Names that an object has for itself, or for its class.
_OWN = ("self", "cls")


def record_fields(tree: ast.Module) -> set[str]:
    """Return the public fields of a module's dataclasses: records, which are there to be filled in."""
    return {
        statement.target.id
        for node in _statements(tree)
        if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(found) for found in node.decorator_list)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if not statement.target.id.startswith("_")
    }


def fields_of_private_classes(tree: ast.Module) -> set[str]:
    """Return the public fields of classes that nobody outside of their module knows."""
    return {
        part.attr
        for node in _statements(tree)
        if isinstance(node, ast.ClassDef) and node.name.startswith("_")
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and ast.unparse(part.value) == "self"
        if not part.attr.startswith("_")
    }


def foreign_assignments(tree: ast.Module, records: set[str]) -> Iterator[tuple[int, str]]:
    """Find assignments to fields of other objects.

    Allowed are an object's own fields, those of an object that the same function made, those of records, and those of
    classes that are private to the module.

    Args:
        tree: A module.
        records: Names of fields of records.

    Yields:
        The line, and what is assigned to, such as ``node.limit``.
    """
    yield from _foreign(tree, records | fields_of_private_classes(tree), frozenset())


def _foreign(node: ast.AST, records: set[str], made: frozenset[str]) -> Iterator[tuple[int, str]]:
    for child in _parts(node):
        if isinstance(child, _FUNCTIONS):
            yield from _foreign(child, records, made | _made_in(child))
            continue
        for target in _targets(child):
            for part in ast.walk(target):
                if not isinstance(part, ast.Attribute) or not isinstance(part.ctx, ast.Store) or part.attr in records:
                    continue
                if isinstance(part.value, ast.Name) and (part.value.id in _OWN or part.value.id in made):
                    continue
                yield part.lineno, ast.unparse(part)
        yield from _foreign(child, records, made)


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a node is made of, but for expressions: no statement is in one."""
    return (child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in _parts(node):
        yield child
        yield from _statements(child)


def _targets(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Assign | ast.Delete):
        return node.targets
    return [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []


def _made_in(function: ast.AST) -> set[str]:
    """Return the names to which a function gives what a call returned."""
    return {
        target.id
        for node in _statements(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def may_patch(code: str) -> bool:
    """Return whether a module has something that :func:`patched_constants` might find; its code need not be parsed otherwise."""
    return _CHANGED.search(code) is not None or (_PATCHES.search(code) is not None and _NAMED.search(code) is not None)


def patched_constants(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Find constants of the project that a test changes: by monkeypatch, by mock, or by assigning to them.

    Args:
        tree: A module of tests.

    Yields:
        The line, and the constant.
    """
    nodes = list(ast.walk(tree))
    ours = _imported_of_ours(nodes)
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            patch = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            arguments = [argument.value if isinstance(argument, ast.Constant) else argument for argument in node.args]
            match patch, arguments:
                case (("setattr" | "patch" | "delattr"), [str(path), *_]) if path.startswith("pgnode."):
                    name = path.rpartition(".")[2]
                    if _CONSTANT.fullmatch(name):
                        yield node.lineno, name
                case (("setattr" | "object" | "delattr"), [ast.expr() as owner, str(name), *_]):
                    if _CONSTANT.fullmatch(name) and _root(owner) in ours:
                        yield node.lineno, name
        for target in _targets(node):
            if isinstance(target, ast.Attribute) and _CONSTANT.fullmatch(target.attr) and _root(target) in ours:
                yield target.lineno, target.attr


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _imported_of_ours(nodes: Iterable[ast.AST]) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pgnode":
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {(alias.asname or "pgnode") for alias in node.names if alias.name.split(".")[0] == "pgnode"}
    return names


def told(found: Mapping[str, Iterator[tuple[int, str]]]) -> list[str]:
    """Return one line for each finding, by the module it is in."""
    return [f"{module}:{line}: {what}" for module, findings in found.items() for line, what in findings]
