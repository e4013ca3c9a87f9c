"""docs/tables.md shows the columns that the tables have."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from repository.tables.schemas import TABLES, WORD

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()


def row_of(field: pa.Field) -> str:
    kind = "text" if field.type == WORD else str(field.type).replace("<item: ", "<")
    about = {key.decode(): value.decode() for key, value in field.metadata.items()}
    return f"| `{field.name}` | {kind}{' or null' if field.nullable else ''} | {about['unit']} | {about['about']} |"


@pytest.mark.parametrize("table", TABLES)
def test_the_page_has_the_columns_of_the_code(table: str) -> None:
    rows = PAGE.split(f"### {table}\n")[1].partition("\n### ")[0].strip().splitlines()
    assert rows[2:] == [row_of(field) for field in TABLES[table]]


def test_every_amount_says_what_it_counts() -> None:
    words = ("size", "bytes", "stored", "content")
    amounts = [field for schema in TABLES.values() for field in schema if any(word in field.name for word in words)]
    assert len(amounts) > 15
    assert [one.name for one in amounts if not one.metadata[b"unit"].endswith(b" bytes")] == []
