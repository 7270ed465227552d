"""Where the tables are: a working folder for each place, and whatever is left or damaged there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dlt.common.runtime.collector import NULL_COLLECTOR
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
from helpers.script import Done, assert_refused, backfill, content, listed, load_from, query
from helpers.servers import BIGQUERY
from helpers.warehouse import Place, load_into

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import ConvertlyError, SettingsError
from convertly_source.loading import Target, load_account, target
from convertly_source.loading.backfill import plan_windows
from convertly_source.loading.target import (
    NAME,
    count_rows,
    drop_staging,
    restore,
    restore_schema,
    select_value,
    stored_tables,
    using,
    working_folder,
)
from convertly_source.tables.schema import TABLES

Serve = Callable[..., DemoAPI]
TARGET = Target()


def test_each_place_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another dataset, destination or file is another folder; the same one is the same."""
    places = [TARGET.place(), Target(dataset="other").place(), Target("ducklake").place()]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    places.append(TARGET.place())
    folders = [working_folder(place) for place in places]
    assert len({*folders}) == 4
    assert {folder.parent for folder in folders} == {tmp_path / "dlt" / "pipelines"}
    assert working_folder(TARGET.place()) == folders[-1]


def test_loads_of_two_places_leave_each_other_alone(serve: Serve) -> None:
    """A load that was broken off leaves its package in its own folder, and to its own dataset."""
    one, two = serve(DemoAccount(30)), serve(DemoAccount(20, seed=1))
    other = Target(dataset="other")
    folder = working_folder(other.place())
    pipeline = other.fresh_pipeline(folder, NULL_COLLECTOR)
    pipeline.extract(convertly_source(DEMO_KEY, two.url))
    load_into(TARGET, one)
    assert pipeline.list_extracted_load_packages()
    assert content() == listed(one.account)
    load_into(other, two)
    assert content("other") == listed(two.account)


@pytest.mark.slow
@pytest.mark.parametrize("left", ["extracted", "normalized", "both", "loaded", "garbage"])
def test_what_a_killed_load_has_left_is_read_again(serve: Serve, left: str) -> None:
    """Whatever is in the working folder, the next load begins with what was committed."""
    api = serve(DemoAccount(60))
    load_into(TARGET, api)
    folder = working_folder(TARGET.place())
    api.account.finish(api.account.unfinished()[0])
    api.account.create()
    pipeline = TARGET.fresh_pipeline(folder, NULL_COLLECTOR)
    restore(pipeline)
    pipeline.extract(convertly_source(DEMO_KEY, api.url))
    if left == "garbage":
        state = folder / NAME / "state.json"
        state.write_text(state.read_text()[:-20])
    elif left != "extracted":
        [package] = pipeline.list_extracted_load_packages()
        path = Path(pipeline.working_dir) / "normalize" / "extracted" / package
        assert path.is_dir()
        pipeline.normalize()
        if left == "both":
            path.mkdir(parents=True)
            (path / "rest").touch()
        if left == "loaded":
            pipeline.load()
    load_into(TARGET, api)
    assert content() == listed(api.account)
    assert load_into(TARGET, api).rows["jobs"] == 0


@pytest.mark.covers
@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("DROP TABLE {}.jobs", "Missing in the destination: jobs."),
        ("DROP TABLE {}.jobs__results", "Missing in the destination: jobs__results."),
        ("DROP TABLE {}.removed_jobs", "Missing in the destination: removed_jobs."),
        ("ALTER TABLE {}.jobs DROP COLUMN progress", "Missing in the destination: jobs."),
        ("DELETE FROM {}.jobs", "The table jobs is empty."),
        ("DROP SCHEMA {} CASCADE", ""),
        ("DROP SCHEMA {}_staging CASCADE", ""),
        ("DROP TABLE {}_staging.jobs", ""),
        ("DROP SCHEMA {0}_staging CASCADE; CREATE SCHEMA {0}_staging", ""),
        ("DROP TABLE {}._dlt_pipeline_state", "The saved state is gone."),
        ("DROP TABLE {}._dlt_version", ""),
        ("DELETE FROM {}._dlt_loads", "The saved state is gone."),
    ],
)
def test_what_was_damaged_by_hand_is_healed(serve: Serve, damage: str, sentence: str) -> None:
    """What is missing is made again and filled; a person is told when all is read again for it."""
    api = serve(DemoAccount(120))
    load_into(TARGET, api)
    query(damage.format("convertly_data"))
    api.account.create()
    api.account.cancel(api.account.unfinished()[1])
    sentences = list[str]()
    load_into(TARGET, api, report=sentences.append)
    assert sentence in "".join(sentences)
    assert len(sentences) == bool(sentence)
    removed = {key for (key,) in query("SELECT id FROM convertly_data.removed_jobs")}
    assert [row for row in content() if row[0] not in removed] == listed(api.account)
    columns = {name for (name,) in query("SELECT column_name FROM (DESCRIBE convertly_data.jobs)")}
    assert columns >= {*TABLES["jobs"][1]}
    assert query("SELECT count(*) > 0 FROM convertly_data.jobs WHERE progress = 100") == [(True,)]
    assert query("SELECT count(filename) > 0 FROM convertly_data.jobs__results") == [(True,)]
    assert load_into(TARGET, api).rows["jobs"] == 0


def kill_before_the_state(api: DemoAPI) -> None:
    """Leave what a load leaves that is killed when its rows are there, and its state is not."""
    load_into(TARGET, api)
    query(
        "DELETE FROM convertly_data._dlt_loads"
        " WHERE load_id = (SELECT max(load_id) FROM convertly_data._dlt_loads)"
    )


def load_a_window(api: DemoAPI) -> None:
    """Load the newest jobs as a window, which leaves no state."""
    window = {"start_date": api.account.jobs[-2]["created_at"], "end_date": "2100-01-01"}
    load_into(TARGET, api, window)


@pytest.mark.slow
@pytest.mark.parametrize("leave_rows", [kill_before_the_state, load_a_window])
def test_rows_that_no_state_knows_are_followed(
    serve: Serve, leave_rows: Callable[[DemoAPI], None]
) -> None:
    """An unfinished job is followed by what is stored of it, even if it is gone the next time."""
    api = serve(DemoAccount(150))
    load_into(TARGET, api)
    gone, ended = api.account.create(), api.account.create()
    leave_rows(api)
    api.account.cancel(gone)
    api.account.finish(ended)
    assert load_into(TARGET, api).held == len(api.account.jobs)
    assert query("SELECT id FROM convertly_data.removed_jobs") == [(gone["id"],)]
    assert [row for row in content() if row[0] != gone["id"]] == listed(api.account)
    api.requests.clear()
    assert load_into(TARGET, api).rows["jobs"] == 0
    assert len(api.requests) <= 3


@pytest.mark.covers
@pytest.mark.slow
def test_rows_that_were_never_counted_are_no_rise(serve: Serve) -> None:
    """A job of a window that vanished before a later start date was counted by nobody."""
    api = serve(DemoAccount(300))
    [gone, *_] = api.account.unfinished()
    load_into(TARGET, api, {"end_date": api.account.jobs[200]["created_at"]})
    start = {"start_date": api.account.jobs[250]["created_at"]}
    api.account.cancel(gone)
    load_into(TARGET, api, start)
    sentences = list[str]()
    load_into(TARGET, api, start, report=sentences.append)
    assert query("SELECT id FROM convertly_data.removed_jobs") == []
    load_into(TARGET, api, report=sentences.append)
    assert query("SELECT id FROM convertly_data.removed_jobs") == [(gone["id"],)]
    assert [row for row in content() if row[0] != gone["id"]] == listed(api.account)
    [sentence] = sentences
    assert sentence.startswith("Jobs before the start date were left out, so all were compared:")
    assert sentence.endswith(" 50 loaded, 1 removed.")
    load_into(TARGET, api)
    kinds = query("SELECT kind FROM convertly_data.runs ORDER BY finished_at")
    assert kinds == [("window",), ("load",), ("load",), ("verify",), ("load",)]


@pytest.mark.covers
@pytest.mark.slow
def test_without_removed_jobs_nothing_is_followed_for_ever(serve: Serve) -> None:
    """Where `removed_jobs` is not loaded, a job that is gone is not looked for in each run."""
    api = serve(DemoAccount(150))
    load_into(TARGET, api)
    api.account.cancel(api.account.unfinished()[0])
    for _ in range(2):
        api.requests.clear()
        source = convertly_source(DEMO_KEY, api.url).with_resources("jobs")
        sentences = list[str]()
        load_account(TARGET, source, report=sentences.append)
        assert sentences == []
    assert len(api.requests) <= 3


@pytest.mark.parametrize(
    ("file", "dataset"),
    [
        ("", "convertly"),
        ("mine.duckdb", "mine"),
        ("Mine.duckdb", "mine"),
        ("mine.v1.duckdb", "Mine"),
        (".mine.duckdb", "mine"),
        ("mine_staging.duckdb", "mine"),
    ],
)
def test_a_dataset_named_as_its_file_is_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, file: str, dataset: str
) -> None:
    """DuckDB couldn't tell one from the other; so nothing is read, nor a history planned."""
    api = serve(DemoAccount(5))
    if file:
        monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", file)
    same = Target(dataset=dataset)
    with pytest.raises(SettingsError, match=r"dataset and the DuckDB file are both named \w+\."):
        load_into(same, api)
    assert not api.requests
    with pytest.raises(SettingsError, match=r"dataset and the DuckDB file are both named \w+\."):
        plan_windows(same, {"api_key": DEMO_KEY, "base_url": api.url}, None, None, 7)
    assert load_into(TARGET, api).new_jobs == 5


@pytest.mark.parametrize(
    "place",
    [
        "duckdb",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("postgres", "sqlalchemy", "sqlalchemy on mariadb", "ducklake")
        ),
        BIGQUERY,
    ],
    indirect=True,
)
def test_a_dataset_and_its_staging_dataset_belong_to_one_load(serve: Serve, place: Place) -> None:
    """Whoever comes second is refused before anything is read, and the first one loads on."""
    api = serve(DemoAccount(20))
    first = place.arguments[1]
    last = f"{first}_staging"

    def load(dataset: str) -> Done:
        api.requests.clear()
        arguments = ["--dataset", dataset, *place.arguments[2:]]
        return load_from(api, *arguments, **{"PYTHONWARNINGS": "ignore"} | place.settings)

    middle = f"{last}_staging"
    assert load(last).returncode == 0
    assert_refused(load(first), 2, f"The dataset {last} is another load's", "Choose another data")
    assert not api.requests
    refused = f"The dataset {middle} is the staging dataset of loads into {last}."
    assert_refused(load(middle), 2, refused, "Choose another dataset")
    assert not api.requests
    api.account.create()
    done = load(last)
    assert "Loaded 1 jobs (1 new, 0 updated)" in done.stdout
    assert "21 listed, 21 held." in done.stdout


def test_a_dataset_that_was_shared_is_left_to_its_own_load(serve: Serve) -> None:
    """Of two loads that an earlier version let share a dataset, only one is refused."""
    api = serve(DemoAccount(20))
    load_into(TARGET, api)
    query("CREATE TABLE convertly_data_staging._dlt_loads AS FROM convertly_data._dlt_loads")
    with pytest.raises(SettingsError, match="The dataset convertly_data_staging is another load's"):
        load_into(TARGET, api)
    load_into(Target(dataset="convertly_data_staging"), api)
    assert content("convertly_data_staging") == listed(api.account)


@pytest.mark.parametrize(
    ("destination", "setting", "location"),
    [
        ("duckdb", "CREDENTIALS", ":pipeline:"),
        ("sqlalchemy", "CREDENTIALS", "sqlite:///:pipeline:"),
        ("filesystem", "BUCKET_URL", ":pipeline:"),
    ],
)
def test_a_folder_that_is_deleted_is_no_place_for_tables(
    serve: Serve, destination: str, setting: str, location: str
) -> None:
    """Where each run would load into another folder, none does."""
    api = serve(DemoAccount(5))
    for command in (load_from, backfill) if destination != "filesystem" else (load_from,):
        name = f"DESTINATION__{destination.upper()}__{setting}"
        done = command(api, f"--destination={destination}", **{name: location})
        assert_refused(done, 2, "The destination would be in a temporary folder", ":pipeline:")


@pytest.mark.parametrize(
    "setting",
    [{"RESTORE_FROM_DESTINATION": "false"}, {"DEV_MODE": "true"}, {"REFRESH": "drop_sources"}],
    ids="".join,
)
def test_dlts_settings_for_other_pipelines_lose_nothing(
    serve: Serve, setting: dict[str, str]
) -> None:
    """Settings that are for other pipelines neither hide nor drop what an earlier load has left."""
    api = serve(DemoAccount(20))
    for new in (20, 1):
        done = load_from(api, **setting)
        assert f"Loaded {new} jobs ({new} new, 0 updated)" in done.stdout
        assert content() == listed(api.account)
        api.account.create()


def test_what_fails_at_a_destination_is_explained() -> None:
    """Errors of drivers become one; those that say what to do stay as they are."""
    with pytest.raises(ConvertlyError, match="The destination can't be used: away"), using(TARGET):
        raise OSError("away")
    error = SettingsError("This.", "That.")
    with pytest.raises(SettingsError, match=r"^This\.\nThat\.$"), using(TARGET):
        raise error


@pytest.mark.covers
@pytest.mark.slow
def test_the_last_states_are_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the stored states only the last ones stay, of other pipelines all."""
    monkeypatch.setattr(target, "KEPT_STATES", 2)
    api = serve(DemoAccount(20))
    load_into(TARGET, api)
    query("UPDATE convertly_data._dlt_pipeline_state SET pipeline_name = 'mine'")
    for _ in range(4):
        api.account.create()
        load_into(TARGET, api)
    states = (
        "SELECT count(*) FROM convertly_data._dlt_pipeline_state GROUP BY pipeline_name = 'mine'"
    )
    assert sorted(query(states)) == [(1,), (2,)]
    assert load_into(TARGET, api).rows["jobs"] == 0
    assert content() == listed(api.account)


def test_an_empty_dataset_has_no_tables(tmp_path: Path) -> None:
    """Nothing is stored there, and a question for a table that is not there is answered."""
    pipeline = TARGET.pipeline(tmp_path / "one")
    restore(pipeline)
    assert stored_tables(pipeline) == set()
    assert select_value(pipeline, "SELECT count(*) FROM {}", "jobs") is None


def test_the_staging_dataset_is_dropped_if_it_is_there(serve: Serve, tmp_path: Path) -> None:
    """Where there is none, as before the first load or after it was dropped, that is no error."""
    load_into(TARGET, serve(DemoAccount(5)))
    pipeline = TARGET.pipeline(tmp_path / "one")
    restore(pipeline)
    staging = "SELECT count(*) FROM duckdb_schemas() WHERE schema_name = 'convertly_data_staging'"
    for there in (1, 0, 0):
        assert query(staging) == [(there,)]
        drop_staging(pipeline)
    assert len(content()) == 5


def test_an_answer_without_rows_may_be_none(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where dlt has None for no rows, as on BigQuery, it is taken for an empty list."""
    load_into(TARGET, serve(DemoAccount(5)))
    for table in ("_dlt_version", "_dlt_pipeline_state"):
        query(f"DELETE FROM convertly_data.{table}")
    execute_sql = DuckDbSqlClient.execute_sql
    pipeline = TARGET.pipeline(tmp_path / "one")
    pipeline.sync_destination()

    def execute(self: DuckDbSqlClient, *arguments: Any) -> Any:
        return execute_sql(self, *arguments) or None

    monkeypatch.setattr(DuckDbSqlClient, "execute_sql", execute)
    assert not restore_schema(pipeline)
    assert select_value(pipeline, "SELECT 1 FROM {} WHERE false", "jobs") is None
    assert count_rows(pipeline, "jobs") == 5
