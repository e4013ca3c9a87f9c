"""Notebooks and their twins: the same cells as a script, which is what is edited and reviewed.

    python -m tests.notebooks.twins [NAME...]

runs the twins and writes the notebooks with what came out; `make notebooks-write` does it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SIZE_MAX = 300_000  # bytes of a notebook with its outputs
SECONDS = 120  # a cell may take; all of a notebook should take less than 15


def twins() -> list[Path]:
    """The scripts that are notebooks, by number."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]-*.py"))


def cells_of(path: Path) -> list[tuple[str, str]]:
    """Kind and source of each cell of a notebook or of its twin."""
    import jupytext

    return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]


def write(twin: Path) -> None:
    """Run a twin and write its notebook. Raises nbclient.exceptions.CellExecutionError."""
    import jupytext
    from nbclient import NotebookClient

    book = jupytext.read(twin)
    book.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    NotebookClient(book, timeout=SECONDS, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    for number, cell in enumerate(book.cells):
        _strip(cell, number)
    book.metadata.pop("language_info", None)
    twin.with_suffix(".ipynb").write_text(jupytext.writes(book, fmt="ipynb") + "\n")


def _strip(cell: Any, number: int) -> None:
    """What changes from run to run without a meaning."""
    cell["id"] = f"cell-{number:02}"
    cell["metadata"] = {}
    if cell.cell_type != "code":
        return
    cell["execution_count"] = None
    for output in cell.outputs:
        output.pop("execution_count", None)
        if output.output_type == "execute_result":
            output["execution_count"] = None
        if "text/html" in output.get("data", {}):  # the same table a second time
            output["metadata"] = {}


def main(names: Sequence[str]) -> None:
    """Write the notebooks with these names, or all."""
    for twin in twins():
        if not names or twin.stem in names:
            print(twin.stem, flush=True)
            write(twin)


if __name__ == "__main__":
    main(sys.argv[1:])
