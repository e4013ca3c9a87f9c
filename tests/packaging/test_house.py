"""House rules that no linter has: files and functions stay short enough to be read in one go."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

from tests.packaging import project

FILE_LINES = 330  # about 300
FUNCTION_LINES = 60  # about 50
MEDIAN_LINES = 12
MADE = "migrations/versions/"  # by Alembic


def functions(path: Path) -> list[tuple[str, int]]:
    """Name and length in lines of every function of a file."""
    return [
        (
            f"{path.relative_to(project.ROOT)}:{node.lineno} {node.name}",
            (node.end_lineno or node.lineno) - node.lineno + 1,
        )
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_files_are_short() -> None:
    lengths = {
        str(path.relative_to(project.ROOT)): path.read_bytes().count(b"\n")
        for path in project.modules()
        if MADE not in str(path)
    }
    assert {path: length for path, length in lengths.items() if length > FILE_LINES} == {}


def test_functions_are_short() -> None:
    found = [pair for path in project.modules() if MADE not in str(path) for pair in functions(path)]
    assert [pair for pair in found if pair[1] > FUNCTION_LINES] == []
    assert statistics.median(length for _, length in found) <= MEDIAN_LINES


def test_public_things_are_documented() -> None:
    """Modules, and public classes and functions at the top level of one."""
    missing = []
    for path in project.modules():
        tree = ast.parse(path.read_bytes())
        nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
        undocumented = [node.name for node in nodes if ast.get_docstring(node) is None and not _is_plain_error(node)]
        missing += [f"{path.relative_to(project.ROOT)}: {name}" for name in undocumented]
        if ast.get_docstring(tree) is None:
            missing.append(f"{path.relative_to(project.ROOT)}: the module itself")
    assert missing == []


def _is_plain_error(node: ast.AST) -> bool:
    """The classes of the error tree are documented by its drawing."""
    return isinstance(node, ast.ClassDef) and all(isinstance(part, ast.Pass | ast.Assign) for part in node.body)
