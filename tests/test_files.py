"""`init` and the files that the wheel ships beside modules, from the repository's own."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import tomlkit
from helpers.script import ROOT, assert_refused, run

from convertly_source import files
from convertly_source.loading.views import MODELS, model

PIPELINES = ROOT / "pipelines"
SCHEDULES = ("Dockerfile", "github_workflow.yml")
TO_COPY = {
    **{f".dlt/{name}": ROOT / ".dlt" / name for name in ("config.toml", "example.secrets.toml")},
    **{
        str(path.relative_to(PIPELINES)): path
        for pattern in ("airflow_dag.py", "examples.sql", *SCHEDULES, "dbt/*.*", "dbt/m*/*")
        for path in PIPELINES.glob(pattern)
    },
}


def copied(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder, by their names."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_init_copies_the_files_of_the_repository(tmp_path: Path) -> None:
    """The DAG, the dbt project, SQL and settings are copied byte for byte, and each is named."""
    done = run("init", "mine/new")
    assert done.returncode == 0, done.stderr
    assert copied(tmp_path / "mine/new") == {
        key: path.read_bytes() for key, path in TO_COPY.items()
    }
    assert sorted(done.stdout.splitlines()) == sorted(f"Wrote mine/new/{name}" for name in TO_COPY)


def test_init_never_overwrites_a_file(tmp_path: Path) -> None:
    """A file that is there is kept, and named; the others are written, in the current folder."""
    own = tmp_path / "airflow_dag.py"
    own.write_text("mine")
    first = run("init")
    assert first.stdout.splitlines()[-1] == "Kept airflow_dag.py (it was there already)"
    assert len(first.stdout.splitlines()) == len(TO_COPY)
    before = copied(tmp_path)
    again = run("init")
    assert again.returncode == 0
    assert [line.split()[0] for line in again.stdout.splitlines()] == ["Kept"] * len(TO_COPY)
    assert copied(tmp_path) == before
    assert own.read_text() == "mine"


@pytest.mark.parametrize("folder", ["mine", "mine/below", "/proc/mine"])
def test_init_names_what_it_can_not_write(tmp_path: Path, folder: str) -> None:
    """A path that is a file, or a folder that can't be written, ends with 2 and names it."""
    (tmp_path / "mine").touch()
    assert_refused(run("init", folder), 2, f"Could not write {folder}", "another folder")


def test_a_wheel_is_made_of_these_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no checkout, each file is looked for where the wheel's settings put it."""
    monkeypatch.setattr(files, "IS_CHECKOUT", False)
    project = tomlkit.parse((ROOT / "pyproject.toml").read_text()).unwrap()
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    package = {ROOT / source: ROOT / target for source, target in included.items()}
    for name, path in {**TO_COPY, "explore_jobs.py": PIPELINES / "explore_jobs.py"}.items():
        source = path if path in package else path.parent
        assert files.shipped(name) == package[source] / path.relative_to(source)


def test_each_view_has_its_sql() -> None:
    """The views are the models of dbt, each begins with what its rows are, and no Jinja is left."""
    assert {*MODELS} == {path.stem for path in PIPELINES.glob("dbt/models/*.sql")}
    assert all(model(name).startswith("-- One row per ") for name in MODELS)
    assert not any(brace in model(name) for name in MODELS for brace in "{}")


@pytest.mark.slow
def test_a_built_wheel_has_the_files(tmp_path: Path) -> None:
    """A wheel holds the files of the repository, byte for byte, the app and the type marker."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*command, str(ROOT)], check=True)
    [wheel] = tmp_path.glob("*.whl")
    shipped = {**TO_COPY, "explore_jobs.py": PIPELINES / "explore_jobs.py"}
    with ZipFile(wheel) as archive:
        folder = "convertly_source/files/"
        names = {name for name in archive.namelist() if name.startswith(folder)}
        found = {name.removeprefix(folder): archive.read(name) for name in names}
        assert "convertly_source/py.typed" in archive.namelist()
    assert found == {name: path.read_bytes() for name, path in shipped.items()}
