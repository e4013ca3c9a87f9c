"""``python -m tests.control.make_migration "what it does"``: a new step, from the newest form to what models say."""

from __future__ import annotations

import sys
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from control.db.base import UtcTime
from control.db.migrate import FOLDER

VERSIONS = FOLDER / "versions"


def render(kind: str, thing: Any, context: Any) -> str | bool:
    """Types of ours are written as what they are in the database: migrations must not change with the program."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(thing, UtcTime) else False


def main() -> None:
    """Makes the file; look at it before it is committed."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    config.attributes["render_item"] = render
    number = f"{len(list(VERSIONS.glob('v*.py'))) + 1:04d}"
    with create_engine("sqlite://").connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        command.revision(config, message=sys.argv[1], autogenerate=True, rev_id=number)


if __name__ == "__main__":
    main()
