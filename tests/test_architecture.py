"""The floors of the package: an import points downwards or stays in its folder, and no modules import each other.

Imports inside functions count as well. Those for type checkers alone count for the direction, but make no circle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1] / "ecg_shock"
# From the ground up. A name is a folder or a module of the package itself; "" is `ecg_shock/__init__.py`.
FLOORS = (
    {"rhythms", "files", "quiet"},
    {"preprocessing"},
    {"data"},
    {"models"},
    {"training"},
    {"inference"},
    {"evaluation"},
    {"search", "export"},
    {"plots"},
    {"report"},
    {"commands"},
    {"", "__main__", "tune"},
)
FLOOR_OF = {place: number for number, floor in enumerate(FLOORS) for place in floor}
MAX_LINES = 650


class Import(NamedTuple):
    """One module of the package importing another."""

    importer: str
    imported: str
    line: int
    at_run_time: bool


def modules_of(package: Path) -> dict[str, Path]:
    """Return the modules of a package by their dotted names."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_of(package: Path) -> Iterator[Import]:
    """Find every import of a module of the package by another, wherever in a file it stands."""
    modules = modules_of(package)
    for importer, path in modules.items():
        folder = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for statement in node.body
            for inner in ast.walk(statement)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = folder.split(".")[: len(folder.split(".")) + 1 - node.level] if node.level else []
                source = ".".join([*above, *(node.module or "").split(".")]).rstrip(".")
                named = [f"{source}.{alias.name}" for alias in node.names]
            else:
                continue
            found = {_module_in(name, modules) for name in named} - {importer, ""}
            for imported in sorted(found):
                yield Import(importer, imported, node.lineno, id(node) not in for_types)


def _module_in(name: str, modules: dict[str, Path]) -> str:
    """Return the module that a name is, or stands in; empty if it is of no module of the package."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def place_of(module: str) -> str:
    """Return the folder of a module, or its name if it stands in the package itself."""
    return (module.split(".") + [""])[1]


def wrong_arrows(package: Path) -> list[str]:
    """Name the imports that point upwards or across."""
    faults = []
    for importer, imported, line, _ in imports_of(package):
        above, below = place_of(importer), place_of(imported)
        where = f"{importer} imports {imported} in line {line}"
        if unknown := {above, below} - FLOOR_OF.keys():
            faults.append(f"{where}: {', '.join(unknown)} has no floor here")
        elif above != below and FLOOR_OF[below] >= FLOOR_OF[above]:
            faults.append(f"{where}: {below or '__init__'} does not lie below {above or '__init__'}")
    return faults


def circles(package: Path) -> list[str]:
    """Name the imports that close a circle of modules."""
    arrows = [found for found in imports_of(package) if found.at_run_time]
    reached: dict[str, set[str]] = {}
    for start in {arrow.importer for arrow in arrows}:
        reached[start], waiting = set(), [start]
        while waiting:
            module = waiting.pop()
            new = {arrow.imported for arrow in arrows if arrow.importer == module} - reached[start]
            reached[start] |= new
            waiting += new
    return [
        f"{importer} imports {imported} in line {line}: a circle, for {imported} leads back to {importer}"
        for importer, imported, line, _ in arrows
        if importer in reached.get(imported, set())
    ]


def test_imports_point_downwards() -> None:
    """No module imports from its own floor or a higher one, but from its own folder."""
    faults = wrong_arrows(PACKAGE)
    assert not faults, "\n".join(faults)


def test_no_modules_import_each_other() -> None:
    """There is no circle, not even through an import inside a function."""
    faults = circles(PACKAGE)
    assert not faults, "\n".join(faults)


def test_modules_are_short_and_no_class_looks_like_a_test() -> None:
    """A module stays below 650 lines, and pytest collects none of its classes."""
    faults = []
    for name, path in modules_of(PACKAGE).items():
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) >= MAX_LINES:
            faults.append(f"{name} has {lines} lines; allowed are fewer than {MAX_LINES}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                faults.append(f"{name}.{node.name} in line {node.lineno}: pytest would collect it by this name")
    assert not faults, "\n".join(faults)


def test_wrong_arrows_and_circles_are_found(tmp_path: Path) -> None:
    """Every kind of import that is forbidden is named with its line, and no other one is."""
    package = tmp_path / "ecg_shock"
    sources = {
        "__init__": "from ecg_shock.inference.advisor import predict\n",
        "rhythms": "",
        "files": "import ecg_shock.rhythms\n",
        "data/windows": "import typing\nif typing.TYPE_CHECKING:\n    from ecg_shock.models.cnn import CnnSpec\n",
        "models/cnn": "from ecg_shock import rhythms\nfrom .bundle import Bundle\n",
        "models/bundle": "def read():\n    from ecg_shock.models import cnn\n",
        "inference/advisor": "import numpy\nfrom ..models.cnn import build\nfrom ecg_shock.data import windows\n",
        "evaluation/roc": "def draw():\n\n    import ecg_shock.plots as plots\n",
        "plots": "",
        "report/html": "from ecg_shock import plots\n",
        "attic/old": "from ecg_shock.data.windows import cut\n",
    }
    for name, source in sources.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    assert wrong_arrows(package) == [
        "ecg_shock.attic.old imports ecg_shock.data.windows in line 1: attic has no floor here",
        "ecg_shock.data.windows imports ecg_shock.models.cnn in line 3: models does not lie below data",
        "ecg_shock.evaluation.roc imports ecg_shock.plots in line 3: plots does not lie below evaluation",
        "ecg_shock.files imports ecg_shock.rhythms in line 1: rhythms does not lie below files",
    ]
    bundle, cnn = "ecg_shock.models.bundle", "ecg_shock.models.cnn"
    assert circles(package) == [
        f"{bundle} imports {cnn} in line 2: a circle, for {cnn} leads back to {bundle}",
        f"{cnn} imports {bundle} in line 2: a circle, for {bundle} leads back to {cnn}",
    ]
