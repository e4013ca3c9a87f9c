"""Notebooks and their twins agree, and what is committed of them is small. `make notebooks` runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.notebooks.twins import NOTEBOOKS, SIZE_MAX, cells_of, twins

INSTALL = "pip install '.[notebook]'"


@pytest.mark.parametrize("twin", twins(), ids=lambda path: path.stem)
def test_notebooks_are_what_their_twins_say(twin: Path) -> None:
    pytest.importorskip("jupytext", reason=INSTALL)
    assert cells_of(twin.with_suffix(".ipynb")) == cells_of(twin), "run: make notebooks-write"


def test_every_notebook_has_a_twin() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {path.stem for path in twins()}


def outputs(notebook: Path) -> list[dict[str, Any]]:
    found = json.loads(notebook.read_text())["cells"]
    return [output for cell in found for output in cell.get("outputs", ())]


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_committed_outputs_are_small_and_whole(notebook: Path) -> None:
    assert notebook.stat().st_size <= SIZE_MAX
    found = outputs(notebook)
    assert any("image/png" in output.get("data", ()) for output in found), "a notebook has a plot"
    assert any(output.get("name") == "stdout" for output in found), "and says what is to be seen"
    assert [output for output in found if output["output_type"] == "error" or output.get("name") == "stderr"] == []
    for output in found:
        text = "".join(output.get("text", ())) + "".join(output.get("data", {}).get("text/plain", ()))
        assert "/lox-notebook-" not in text, "paths of whoever ran it do not belong here"
