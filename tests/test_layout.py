"""The house: which room imports which, what is public, and how tests are written."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from helpers.script import ROOT

PACKAGE = ROOT / "convertly_source"
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
# The way of a job, and what stands around it: nothing imports what is further down.
ROOMS = (
    *("errors", "api", "reading", "tables", "settings", "source", "__init__"),
    *("files", "loading", "demo", "progress", "cli", "__main__"),
)
PUBLIC = {
    "convertly_source": ["convertly_source"],
    "convertly_source.demo": [
        *("DEMO_KEY", "DEMO_START", "JOB_TYPES", "DemoAPI", "DemoAccount"),
        *("Reply", "newest_first", "result_file"),
    ],
    "convertly_source.loading": [
        *("LoadResult", "Target", "VerifyResult", "load_account", "verify_account"),
    ],
}
LONGEST_NAME = 60


def modules() -> list[Path]:
    """Return the modules of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """Yield the names of all modules that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """Return the room of a module or of a name in it, without the package's own name."""
    first = name.partition(".")[0]
    return first if first in ROOMS else "__init__"


def test_no_room_imports_one_further_down() -> None:
    """A job passes the rooms in one direction, and so do imports."""
    homes = {
        file: room(".".join(file.relative_to(PACKAGE).with_suffix("").parts)) for file in modules()
    }
    assert {*homes.values()} == {*ROOMS}
    for file, home in homes.items():
        for name in imports(file):
            package, _, rest = name.partition(".")
            if package == PACKAGE.name:
                is_before = ROOMS.index(room(rest)) <= ROOMS.index(home)
                assert is_before, f"{file.name} imports {name}"


def test_only_the_command_line_names_its_options() -> None:
    """Errors and docstrings of the package name settings; `cli.py` names options."""
    for file in modules():
        nodes = ast.walk(ast.parse(file.read_text()))
        texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
        named = [text for text in texts if isinstance(text, str) and re.search(r"--[a-z]", text)]
        assert bool(named) is (file.name == "cli.py"), f"{file}: {named}"


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_names_are_these(name: str) -> None:
    """What users may import is listed, and is there; nothing else is promised."""
    module = import_module(name)
    assert sorted(module.__all__) == sorted(PUBLIC[name])
    assert all(hasattr(module, public) for public in PUBLIC[name])


def test_no_test_imports_a_test() -> None:
    """What tests share is in `helpers`."""
    names = {file.stem for file in TESTS} | {"conftest"}
    for file in [*TESTS, *(ROOT / "tests" / "helpers").glob("*.py")]:
        shared = {part for name in imports(file) for part in name.split(".")} & names
        assert not shared, f"{file} imports {shared}"


def test_tests_are_named_by_their_promise() -> None:
    """A test has a short name and a docstring, which are read when it fails."""
    for file in TESTS:
        tree = ast.parse(file.read_text())
        assert ast.get_docstring(tree), file
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert len(node.name) <= LONGEST_NAME, f"{file}: {node.name}"
                assert ast.get_docstring(node), f"{file}: {node.name}"


def test_tests_stand_in_the_room_that_they_test() -> None:
    """The folders of tests are those of the package, and of what is beside it."""
    folders = {
        file.relative_to(ROOT / "tests").parts[0] for file in TESTS if file.parent.name != "tests"
    }
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == rooms | {"pipelines"}
