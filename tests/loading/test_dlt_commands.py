"""dlt's own commands on the working folder of a load, as pipelines/README.md lists them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.docs import PIPELINES, blocks, names, table
from helpers.history import Ask
from helpers.script import Done, content, listed, query
from helpers.warehouse import load_into

from convertly_source.demo import DemoAccount, DemoAPI
from convertly_source.loading import Target, target
from convertly_source.loading.target import working_folder

Serve = Callable[..., DemoAPI]
TARGET = Target()


def dlt_pipeline(*arguments: str, into: Target = TARGET) -> Done:
    """Run `dlt pipeline` in the working folder of a target, and answer its prompts with yes."""
    folder = working_folder(into.place())
    command = [str(Path(sys.executable).with_name("dlt")), "-y", "pipeline"]
    return subprocess.run(
        [*command, "--pipelines-dir", str(folder), "convertly", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def packages(into: Target = TARGET) -> list[str]:
    """Return the load ids whose packages are in the working folder of a target."""
    folder = working_folder(into.place()) / "convertly" / "load" / "loaded"
    return sorted(path.name for path in folder.iterdir())


def test_the_last_loads_stay_in_the_working_folder(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their packages stay, without the rows, and no more of them than are kept."""
    monkeypatch.setattr(target, "KEPT_LOADS", 2)
    api = serve(DemoAccount(20))
    seen = list[str]()
    for _ in range(4):
        load_into(TARGET, api)
        seen = sorted({*seen, *packages()})
    assert len(seen) == 4
    assert packages() == seen[-3:]  # the one that was made, and those that were kept
    folder = working_folder(TARGET.place())
    assert not [*folder.glob("convertly/load/loaded/*/completed_jobs/*")]


def test_a_kill_while_packages_are_kept_costs_none(serve: Serve) -> None:
    """Where the packages were set aside and not put back, the next load puts them back."""
    api = serve(DemoAccount(20))
    load_into(TARGET, api)
    before = packages()
    folder = working_folder(TARGET.place())
    (folder / "convertly" / "load" / "loaded").rename(folder / "loaded")
    load_into(TARGET, api)
    assert packages()[:-1] == before
    assert {path.name for path in folder.iterdir()} == {"convertly", "lock", "since"}


@pytest.mark.slow
def test_dlts_commands_show_the_loads(serve: Serve) -> None:
    """They print the state, the last loads, the steps of the last one, and the tables."""
    api = serve(DemoAccount(30))
    for _ in range(2):
        load_into(TARGET, api)
    printed = {
        "info": ["dataset_name: convertly_data", "Has 2 completed load packages", *packages()],
        "trace": ["Step load COMPLETED", "- runs: 1 row(s)"],
        "load-package": [packages()[-1], "is in LOADED state"],
        "schema": ["name: convertly", "jobs__results:"],
        "sync": ["Restoring from destination"],
        "show": ["Install dlt[hub]"],
    }
    documented = [names(command)[0] for command, _ in table(PIPELINES, "command", "what dlt does")]
    assert documented == [*printed, "drop jobs"]
    for command, words in printed.items():
        done = dlt_pipeline(command)
        assert done.returncode == 0, done.stderr
        assert all(word in done.stdout + done.stderr for word in words), done
    api.account.create()
    assert load_into(TARGET, api).rows["jobs"] == 1
    assert content() == listed(api.account)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["jobs", "rejected_jobs", "removed_jobs", "--drop-all"])
def test_what_dlt_has_dropped_is_loaded_again(serve: Serve, arguments: str) -> None:
    """The next load makes the tables again, and reads everything; the one after it nothing."""
    api = serve(DemoAccount(60))
    api.account.jobs[7]["id"] = None
    load_into(TARGET, api, views=True)
    rejected = query("SELECT reason FROM convertly_data.rejected_jobs")
    assert len(rejected) == 1
    done = dlt_pipeline("drop", arguments)
    assert done.returncode == 0, done.stderr
    api.account.finish(api.account.unfinished()[0])
    assert load_into(TARGET, api).rows["jobs"] == 59
    assert content() == sorted((job["id"], job["status"]) for job in api.account.jobs if job["id"])
    assert query("SELECT reason FROM convertly_data.rejected_jobs") == rejected
    assert load_into(TARGET, api).rows["jobs"] == 0


@pytest.mark.slow
def test_views_hold_back_a_drop_on_postgres(serve: Serve, in_postgres: Ask) -> None:
    """The tables stay, and loads go on; once the views are dropped as documented, it works."""
    into = Target("postgres")
    in_postgres("DROP SCHEMA IF EXISTS convertly_data CASCADE")
    [drop_views] = [block.text for block in blocks(PIPELINES, "sql") if "DROP VIEW" in block.text]
    count = "SELECT count(*) FROM convertly_data.{}"
    api = serve(DemoAccount(60))
    load_into(into, api, views=True)
    done = dlt_pipeline("drop", "jobs", into=into)
    assert done.returncode != 0
    assert "depend" in done.stderr
    assert load_into(into, api).rows["jobs"] == 0
    assert in_postgres(count.format("job_facts")) == [(60,)]
    in_postgres(drop_views)
    done = dlt_pipeline("drop", "jobs", into=into)
    assert done.returncode == 0, done.stderr
    assert load_into(into, api, views=True).rows["jobs"] == 60
    assert in_postgres(count.format("job_facts")) == [(60,)]
    assert load_into(into, api).rows["jobs"] == 0
