"""Our top-level names are plain words: nothing else may own them, and nothing undeclared may be needed."""

from __future__ import annotations

import re
import sys
from importlib.metadata import packages_distributions

from tests.packaging import project

OWN = {"lox-backup", "lox_backup"}


def test_no_installed_distribution_owns_one_of_our_names() -> None:
    owners = packages_distributions()
    foreign = {name: set(owners.get(name, ())) - OWN for name in [*project.packages(), "agent", "control", "configs"]}
    assert not any(foreign.values()), foreign


def test_every_foreign_import_is_a_declared_dependency() -> None:
    settings = project.settings()["project"]
    extras = [line for name, lines in settings["optional-dependencies"].items() if name != "dev" for line in lines]
    declared = {normalised(re.split(r"[ ;<>=!~\[]", line)[0]) for line in [*settings["dependencies"], *extras]}
    owners = packages_distributions()
    ours = set(project.packages())
    undeclared = {}
    for path in project.modules():
        for name in project.imports(path) - ours - set(sys.stdlib_module_names):
            if not {normalised(owner) for owner in owners.get(name, [name])} & declared:
                undeclared[str(path.relative_to(project.ROOT))] = name
    assert not undeclared


def test_shipped_packages_are_those_with_floors() -> None:
    """A package that import-linter does not know would have no floor; one that is not shipped would be missing."""
    included = {
        name for name in project.settings()["tool"]["setuptools"]["packages"]["find"]["include"] if "." not in name
    }
    assert included - {"configs"} == set(project.packages())
    for name in project.packages():
        for folder in {path.parent for path in (project.ROOT / name).rglob("*.py")}:
            assert (folder / "__init__.py").exists(), f"{folder} would not be shipped"


def normalised(distribution: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
