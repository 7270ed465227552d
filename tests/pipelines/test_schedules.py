"""The workflow and the Dockerfile: what they run, with the real command line."""

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import tomlkit
import yaml
from helpers.script import ROOT, content, listed

from convertly_source.cli import parser
from convertly_source.demo import DemoAccount
from convertly_source.errors import EXTRAS

WORKFLOW = ROOT / "pipelines" / "github_workflow.yml"
DOCKERFILE = ROOT / "pipelines" / "Dockerfile"
PROJECT = tomlkit.parse((ROOT / "pyproject.toml").read_text()).unwrap()["project"]
AVAILABLE: dict[str, list[str]] = PROJECT["optional-dependencies"]


def instructions(name: str) -> list[str]:
    """Return what the Dockerfile has for an instruction."""
    return re.findall(rf"^{name} (.+)$", DOCKERFILE.read_text(), re.MULTILINE)


def extras(command: str) -> list[str]:
    """Return the extras that a command installs."""
    [names] = re.findall(r"\[([\w,]+)\]", command)
    return str(names).split(",")


def test_the_workflow_runs_commands_that_there_are() -> None:
    """It is YAML, runs hourly, alone, and installs what its load needs; secrets are no text."""
    workflow: Any = yaml.safe_load(WORKFLOW.read_text())
    [when] = workflow[True]["schedule"]  # YAML 1.1 takes `on` for true
    assert re.fullmatch(r"\d+ \* \* \* \*", when["cron"])
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]
    [job] = workflow["jobs"].values()
    checkout, python, install, load = job["steps"]
    own: Any = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert [checkout["uses"], python["uses"]] == [
        step["uses"] for step in own["jobs"]["lint"]["steps"] if "uses" in step
    ]
    assert f"Python :: {python['with']['python-version']}" in str(PROJECT["classifiers"])
    program, *arguments = shlex.split(load["run"])
    options = parser().parse_args(arguments)
    assert program in PROJECT["scripts"]
    assert options.command == "load"
    assert extras(install["run"]) == [options.destination]
    assert options.destination in AVAILABLE
    credentials = f"DESTINATION__{options.destination.upper()}__CREDENTIALS"
    assert load["env"].keys() == {"CONVERTLY_API_KEY", credentials}
    assert all(re.fullmatch(r"\${{ secrets\.\w+ }}", value) for value in load["env"].values())


def test_an_extra_has_what_dlt_has_for_it() -> None:
    """Each extra for a destination is made of dlt's, and errors name it for that one."""
    made_of = {
        name: re.findall(r"^dlt\[(\w+)\]$", packages[0]) for name, packages in AVAILABLE.items()
    }
    assert {name: [extra] for extra, name in EXTRAS.items()} == {
        name: found for name, found in made_of.items() if found
    }


def test_the_container_does_not_run_as_root() -> None:
    """Its last user is another one, and the folder in which it works can be written by anyone."""
    [user], [home], [folder] = map(instructions, ("USER", "ENV", "WORKDIR"))
    assert user == "nobody"
    assert home == f"HOME={folder}"
    assert f"mkdir -m 777 {folder}" in instructions("RUN")


@pytest.mark.slow
def test_the_container_loads(tmp_path: Path) -> None:
    """What the Dockerfile runs installs the wheel and its extras, and loads into its folder."""
    wheels, data, venv = tmp_path / "wheel", tmp_path / "data", tmp_path / "venv"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}

    def run(command: str, folder: Path = tmp_path) -> None:
        here = command.replace("/wheel/", f"{wheels}/").replace("/data", str(data))
        subprocess.run(["/bin/sh", "-ec", here], env=environment, cwd=folder, check=True)

    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    run(shlex.join(["pip", "wheel", "-q", "--no-deps", "-w", str(wheels), str(ROOT)]))
    lend_packages(tmp_path / "lent", venv)
    [copied] = instructions("COPY")
    pattern, _ = copied.split()
    assert len([*wheels.glob(pattern)]) == 1
    for command in instructions("RUN"):
        assert set(extras(command) if "pip" in command else []) <= AVAILABLE.keys()
        run(command)
    environment |= {"HOME": str(data)}
    [entrypoint], [command] = map(instructions, ("ENTRYPOINT", "CMD"))
    run(shlex.join([*json.loads(entrypoint), *json.loads(command), "--demo"]), data)
    os.chdir(data)
    assert content() == listed(DemoAccount())


def lend_packages(folder: Path, venv: Path) -> None:
    """Let an environment use what is installed here, but this package, instead of downloads."""
    folder.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("convertly", "_convertly", "__editable__")):
            (folder / path.name).symlink_to(path)
    [site] = venv.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(str(folder))
