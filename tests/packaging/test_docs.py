"""The documentation's links lead somewhere, decisions are numbered, and the two commands are what the README says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.packaging.project import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADINGS = ("## Problem", "## Options measured", "## Choice", "## Cost")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page}: {target}"


def test_terms_name_files_that_exist() -> None:
    rows = re.findall(r"^\| \*\*.*\| `([^`]+)` \|$", (ROOT / "docs" / "terms.md").read_text(), re.MULTILINE)
    assert len(rows) > 20
    assert [path for path in rows if not (ROOT / path).exists()] == []


def test_decisions_are_numbered_without_gaps_and_have_their_four_parts() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(record.name[:3]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text()
        assert [heading for heading in HEADINGS if heading not in text] == [], record.name


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_readme_names_commands_that_the_makefile_has(command: str) -> None:
    assert command in (ROOT / "README.md").read_text()
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
