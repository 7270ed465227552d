"""The documentation: what it shows is what happens, and what it names is there."""

import argparse
import ast
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import dlt
import duckdb
import psycopg2
import pytest
import sqlglot
import tomlkit
import yaml
from dlt.common.configuration.specs.base_configuration import extract_inner_hint
from dlt.common.destination import Destination
from helpers.docs import (
    CHANGELOG,
    CONTRIBUTING,
    DOCS,
    PACKAGE,
    PIPELINES,
    USER_DOCS,
    Block,
    anchors,
    blocks,
    commands,
    links,
    names,
    table,
)
from helpers.script import README, ROOT, access, content, listed, load_from, query, run
from helpers.servers import postgres

from convertly_source import convertly_source, errors
from convertly_source.cli import parser
from convertly_source.demo import DemoAccount, DemoAPI
from convertly_source.loading.target import NAME
from convertly_source.tables.schema import TABLES

Serve = Callable[..., DemoAPI]
HOME = "/home/me"  # the folder in which the documentation runs commands
PROJECT = tomlkit.parse((ROOT / "pyproject.toml").read_text()).unwrap()
PYTHON = [block for file in DOCS for block in blocks(file, "python")]
NAMED = [  # settings of destinations, with a value
    setting
    for file in USER_DOCS
    for setting in re.findall(r"`(DESTINATION__([A-Z]+)__\w+?)=(\S+?)`", file.read_text())
]
TESTED = {"DUCKDB", "DUCKLAKE", "POSTGRES", "SQLALCHEMY", "FILESYSTEM"}
OF_OTHER_PROGRAMS = {  # airflow, dlt, pip, dbt
    "--conf",
    "--format",
    "--group",
    "--no-deps",
    "--pipelines-dir",
    "--project-dir",
}


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command."""
    found: Any = next(action.choices for action in parser()._actions if action.choices)
    return dict(found)


def options_of(command: argparse.ArgumentParser) -> set[str]:
    """Return the long options of a command, without its help."""
    found = {option for action in command._actions for option in action.option_strings}
    return {option for option in found if option.startswith("--")} - {"--help"}


def printed(block: Block) -> str:
    """Run a block as a user would in `HOME`; return what they see, without the progress."""
    if block.language == "sql":
        with duckdb.connect("convertly.duckdb") as connection:
            return str(connection.sql(block.text))
    seen = ""
    for line in block.text.splitlines():
        program, *arguments = shlex.split(line)
        if program == "convertly-source":
            done = run(*arguments)
            seen += done.stdout
            lines = done.stderr.splitlines(keepends=True)
            seen += "".join(line for line in lines if not line.endswith(" jobs read\n"))
    return seen.replace(str(Path.cwd()), HOME)


@pytest.mark.parametrize("file", [README, PIPELINES], ids=["README", "pipelines"])
def test_commands_print_what_is_shown(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command and query that has an output below it prints that, after `pip install -e .`."""
    monkeypatch.setitem(sys.modules, "altair", None)  # of the extra `explore`
    shown = [block for block in blocks(file) if block.output]
    assert len(shown) == 2
    for block in shown:
        assert printed(block).strip() == str(block.output).strip()
    assert content() == listed(DemoAccount())


@pytest.mark.parametrize("file", DOCS, ids=lambda file: str(file.relative_to(ROOT)))
def test_each_command_is_possible(file: Path) -> None:
    """A command has a program, arguments, files, extras and targets that there are."""
    for line in commands(file):
        command = line.removesuffix(" >/dev/null")
        check_command(re.sub(r"^(([\d*]+ ){4}[\d*]+|[A-Z_]+=\S+) ", "", command))


def check_command(command: str) -> None:
    """Check the arguments of a program that the documentation runs."""
    program, *arguments = shlex.split(command)
    if program.removeprefix(".venv/bin/") == "convertly-source":
        parser().parse_args(arguments)
    elif program == "pip":
        check_installation(arguments)
    elif program == "airflow":
        check_airflow(arguments)
    elif program == "dlt":
        check_dlt(arguments)
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets), command
    elif arguments[:1] == ["-m"]:
        assert arguments == ["-m", "convertly_source"]
    elif program in ("python", "marimo", "pytest") and arguments:
        path = next(argument for argument in arguments if argument.endswith(".py"))
        assert (ROOT / path).is_file(), command
    else:
        assert program in ("cd", "export", "pytest", ".ci/run"), command


def check_installation(arguments: list[str]) -> None:
    """Check the extras, the dependency group and the version of the wheel."""
    known = PROJECT["project"]["optional-dependencies"]
    for argument in arguments:
        for extras in re.findall(r"^(?:\.|convertly-source)\[(.+)\]$", argument):
            assert set(extras.split(",")) <= known.keys()
        if argument.endswith(".whl"):
            assert argument.startswith(f"convertly_source-{PROJECT['project']['version']}-")
    if "--group" in arguments:
        assert arguments[arguments.index("--group") + 1] in PROJECT["dependency-groups"]


def check_airflow(arguments: list[str]) -> None:
    """Check that the DAG has what a command names."""
    dag = (ROOT / "pipelines" / "airflow_dag.py").read_text()
    if arguments[:2] == ["dags", "trigger"]:
        assert f"def {arguments[2]}(" in dag
        assert all(f'"{name}": Param(' in dag for name in json.loads(arguments[4]))
    else:
        assert arguments[:2] == ["pools", "set"]


def check_dlt(arguments: list[str]) -> None:
    """Check that a command for the pipeline names it and its folder; another test runs those."""
    assert arguments[:2] == ["pipeline", "--pipelines-dir"]
    assert re.fullmatch(rf"~/.dlt/pipelines/{NAME}-[0-9a-f]{{12}}", arguments[2])
    assert arguments[3:] == [NAME, "info"]


def test_the_flags_are_those_of_help() -> None:
    """The table of flags has each option, with the commands that take it."""
    rows = table(PIPELINES, "flag", "of", "meaning")
    documented = {names(flag)[0]: set(names(of)) for flag, of, _ in rows}
    options = {name: options_of(command) for name, command in command_parsers().items()}
    assert documented == {
        option: {name for name, taken in options.items() if option in taken}
        for option in set().union(*options.values())
    }
    rows = table(PIPELINES, "command", "what it does")
    assert [names(command)[0] for command, _ in rows] == [*options]


def test_options_in_the_text_exist() -> None:
    """Each option that is named is one of the command line, or of a program that is named."""
    known = set().union(*map(options_of, command_parsers().values())) | OF_OTHER_PROGRAMS
    for file in (*USER_DOCS, CONTRIBUTING):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", file.read_text()))
        assert named <= known, file


def test_the_settings_are_the_arguments_of_the_source() -> None:
    """The table of settings has each argument of `convertly_source()`, with its default."""
    rows = table(README, "setting", "default", "meaning")
    documented = {names(setting)[0]: default.strip("`") for setting, default, _ in rows}
    values = {
        name: parameter.default
        for name, parameter in inspect.signature(convertly_source).parameters.items()
    }
    defaults = {None: "none", False: "false", dlt.secrets.value: "CONVERTLY_API_KEY"}
    expected = {name: defaults.get(value, str(value)) for name, value in values.items()}
    assert documented == expected


def test_the_exit_codes_are_those_of_the_errors() -> None:
    """The table of exit codes has each error of the package, and no other."""
    rows = table(README, "exit code", "error", "what to do")
    documented = {name: int(code) for code, error, _ in rows for name in names(error)}
    kinds = errors.ConvertlyError.__subclasses__()
    assert documented == {kind.__name__: kind.exit_code for kind in kinds}


def test_the_symptoms_are_messages_of_the_package() -> None:
    """What is quoted as a symptom is printed somewhere, by the package or by DuckDB."""
    sources = [file.read_text() for file in PACKAGE.parent.rglob("*.py")]
    for symptom, *_ in table(README, "symptom", "cause", "remedy"):
        for quoted in names(symptom):
            text = quoted.removesuffix(" ...")
            assert text == "Could not set lock" or any(text in source for source in sources)


def test_the_tables_are_those_of_the_schema() -> None:
    """The README names each table and column; the package's README has what `tables` prints."""
    rows = table(README, "table", "rows", "columns")
    documented = {names(name)[0]: (meaning, names(columns)) for name, meaning, columns in rows}
    assert documented == {
        name: (meaning, list(columns)) for name, (meaning, columns) in TABLES.items()
    }
    assert run("tables").stdout in PACKAGE.read_text()


@pytest.mark.parametrize("file", DOCS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    """A link inside the repository leads to a file or folder, and to a heading in it."""
    for link in links(file):
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = (file.parent / path).resolve() if path else file
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_readme_has_its_pictures_and_fits() -> None:
    """The README has at most 200 lines and two pictures, and names the test command of CI."""
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    assert len(re.findall(r"^!\[", text, re.MULTILINE)) == 2
    [command] = re.findall(r"grep -m1 -o '(.+)' README.md", (ROOT / ".ci" / "run").read_text())
    assert command.replace("\\", "") in text


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_runs(number: int, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of Python loads an account; one for Airflow is run there by another test."""
    block = PYTHON[number]
    ast.parse(block.text)
    if "airflow" not in block.text:
        api = serve(DemoAccount(20))
        execute(block, api, monkeypatch)
        [file] = Path.cwd().glob("*.duckdb")
        with duckdb.connect(str(file)) as connection:
            jobs = connection.execute("SELECT id, status FROM convertly_data.jobs ORDER BY id")
            assert jobs.fetchall() == listed(api.account)


def execute(block: Block, api: DemoAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a block of Python for an account, as the script of a user."""
    for name, value in (access(api) | {"PSEUDONYM_KEY": "key"}).items():
        monkeypatch.setenv(name, value)
    exec(block.text, {"__name__": "__main__"})  # noqa: S102 - our own documentation


def test_the_example_for_personal_data_keeps_it_out(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No table has a name or a link, hashes tell names apart, and what did not change stays."""
    [block] = [block for block in PYTHON if "pseudonym" in block.text]
    api = serve(DemoAccount(60))
    job = next(job for job in api.account.jobs if job["status"] == "completed")
    job |= {"results": [{"filename": ["mine.mov"]}, {"k": "v" * 70_000}], "inputUrl": "mine.mov"}
    api.account.jobs[7] |= {"id": None, "inputUrl": "mine.mov"}
    execute(block, api, monkeypatch)
    tables = query(
        "SELECT table_name FROM duckdb_tables() WHERE schema_name LIKE 'convertly_data%'"
    )
    stored = str([query(f"FROM convertly_data.{name}") for (name,) in tables])
    assert not re.search(r"hero-|mine\.mov|assets|in\.mp4|https?://files|v{20}", stored)
    loads = "SELECT DISTINCT _dlt_load_id FROM convertly_data.jobs"
    names_in_results = "SELECT count(DISTINCT filename) FROM convertly_data.jobs__results"
    assert query(names_in_results)[0][0] > 5
    assert query("SELECT count(input_url) FROM convertly_data.jobs") == [(1,)]
    before = query(loads)
    execute(block, api, monkeypatch)
    assert query(loads) == before
    api.account.finish(api.account.unfinished()[0])
    execute(block, api, monkeypatch)
    assert len(query(loads)) == len(before) + 1
    assert content() == sorted((job["id"], job["status"]) for job in api.account.jobs if job["id"])


def test_configuration_and_queries_parse() -> None:
    """TOML names settings that there are, and SQL is taken by a parser."""
    for file in DOCS:
        for block in blocks(file, "toml"):
            settings = tomlkit.parse(block.text).unwrap()["sources"]["convertly"]
            assert settings.keys() <= inspect.signature(convertly_source).parameters.keys()
        for block in blocks(file, "sql"):
            assert sqlglot.parse(block.text, dialect="postgres")
        known = {"crontab", "python", "sh", "sql", "text", "toml"}
        assert {block.language for block in blocks(file)} <= known


def test_the_public_names_are_those_listed() -> None:
    """What users may import is listed, and is there; nothing else is promised."""
    rows = table(PACKAGE, "module", "names")
    public = {names(module)[0]: names(promised) for module, promised in rows}
    for name, promised in public.items():
        module = import_module(name)
        assert sorted(getattr(module, "__all__", promised)) == sorted(promised)
        assert all(hasattr(module, one) for one in promised)
    modules = [".".join(file.parent.relative_to(ROOT).parts) for file in init_files()]
    promising = [name for name in modules if hasattr(import_module(name), "__all__")]
    assert public.keys() == {*promising, "convertly_source.errors"}


def init_files() -> list[Path]:
    """Return the first module of each package."""
    return sorted((ROOT / "convertly_source").rglob("__init__.py"))


def test_the_map_has_each_module() -> None:
    """The map of the code has each folder and module of the package, and no other."""
    rows = table(PACKAGE, "module", "what it does")
    mapped = {target for cell, _ in rows for target in re.findall(r"\((.+)\)", cell)}
    folder = PACKAGE.parent
    modules = {file.parent.name for file in init_files()} - {folder.name}
    modules |= {file.name for file in folder.glob("*.py") if not file.name.startswith("__")}
    assert mapped == modules


def test_the_changelog_adds_the_first_version() -> None:
    """Nobody has had an earlier version, so there is nothing but additions."""
    headings = re.findall(r"^##+ (.+)$", CHANGELOG.read_text(), re.MULTILINE)
    assert headings == [PROJECT["project"]["version"], "Added"]


def test_the_forms_and_the_workflow_are_right() -> None:
    """An issue asks for the exit code and for `check`; the workflow runs what `.ci/run` has."""
    folder = ROOT / ".github"
    forms = [yaml.safe_load(file.read_text()) for file in folder.glob("ISSUE_TEMPLATE/*.yml")]
    [bug] = [form for form in forms if form.get("labels") == ["bug"]]
    labels = " ".join(field["attributes"].get("label", "") for field in bug["body"])
    assert "Exit code" in labels
    assert "`convertly-source check`" in labels
    workflow = yaml.safe_load((folder / "workflows" / "ci.yml").read_text())
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    assert {".ci/run", ".ci/run lint"} <= {*steps}
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    ids = [hook["id"] for repository in hooks for hook in repository["hooks"]]
    assert ids == ["ruff-check", "ruff-format", "codespell", "check-toml"]


@pytest.mark.slow
def test_the_listed_rights_are_enough(serve: Serve, servers: Any) -> None:
    """On PostgreSQL, a role with the rights that are listed loads, and makes views."""
    [rights] = [block.text for block in blocks(PIPELINES, "sql") if "CREATE ROLE" in block.text]
    url = servers(postgres)
    for database, sql in (("postgres", "CREATE DATABASE rights"), ("rights", rights)):
        with closing(psycopg2.connect(url.replace("/postgres?", f"/{database}?"))) as server:
            server.autocommit = True
            server.cursor().execute(sql)
    url = url.replace("/postgres?", "/rights?")
    own = url.replace("postgres:unused", "convertly_loader:unused")
    api = serve(DemoAccount(60))
    for arguments in (["--models"], ["--full-refresh"], ["--models"]):
        settings = {"DESTINATION__POSTGRES__CREDENTIALS": own}
        done = load_from(api, "--destination", "postgres", *arguments, **settings)
        assert done.returncode == 0, done.stderr
        api.account.finish(api.account.unfinished()[0])


def test_settings_of_tested_destinations_are_dlts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting in the tables of destinations is taken by the destination it is for."""
    named = [setting for setting in NAMED if setting[1] in TESTED]
    assert {kind for _, kind, _ in named} == TESTED
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"DESTINATION__FILESYSTEM__CREDENTIALS__{key}", "test")
    for name, kind, value in named:
        monkeypatch.setenv(name, value)
        pipeline = dlt.pipeline(f"of_{kind.lower()}", destination=kind.lower(), dataset_name="data")
        config: Any = pipeline.destination_client().config
        is_url = name.endswith("BUCKET_URL")
        holder = getattr(config.credentials, "storage" if is_url else "catalog", config.credentials)
        holder = config if kind == "FILESYSTEM" else holder
        found = holder.bucket_url if is_url else holder.to_native_representation()
        assert value.rpartition("/")[2] in found


def credentials_of(kind: str) -> Any:
    """Make the empty credentials of a destination, whose driver need not be installed."""
    destination: Any = Destination.from_reference(kind.lower())
    hint = destination.spec.get_resolvable_fields()["credentials"]
    return extract_inner_hint(hint)()


def test_settings_of_untested_destinations_are_dlts() -> None:
    """Where a destination can't be run, its listed settings are at least those of dlt."""
    urls = {kind: value for _, kind, value in NAMED if kind not in TESTED}
    pattern = r"`DESTINATION__([A-Z]+)__CREDENTIALS__(\w+)`((?:, `\.\.\._\w+`)+)"
    fields = re.findall(pattern, PIPELINES.read_text())
    assert {*urls, *(kind for kind, _, _ in fields)} == {
        *("BIGQUERY", "SNOWFLAKE", "REDSHIFT", "MOTHERDUCK", "CLICKHOUSE", "DATABRICKS"),
    }
    for kind, url in urls.items():
        credentials = credentials_of(kind)
        credentials.parse_native_representation(url)
        assert credentials.database == "database"
    for kind, first, rest in fields:
        found = [first, *re.findall(r"_(\w+)", rest)]
        assert {name.lower() for name in found} <= set(credentials_of(kind).get_resolvable_fields())
