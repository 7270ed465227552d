"""What an earlier load has left in the working folder is loaded once, and where it belongs."""

from collections.abc import Callable
from pathlib import Path

import dlt
import duckdb
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from helpers.script import content, held, listed
from helpers.warehouse import load_into

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.errors import SettingsError
from convertly_source.loading import Target

Serve = Callable[..., DemoAPI]
TARGET, OTHER = Target(), Target(dataset="other")


def read_only(api: DemoAPI) -> dlt.Pipeline:
    """Read the account, as a load does that is killed before it has loaded anything."""
    pipeline = TARGET.pipeline()
    pipeline.extract(convertly_source(DEMO_KEY, api.url), loader_file_format="parquet")
    return pipeline


def test_a_load_that_failed_is_finished_first(serve: Serve, tmp_path: Path) -> None:
    """A load that could not be written is finished by the next one, which then does its own."""
    api = serve(DemoAccount(50))
    load_into(TARGET, api)
    late = api.account.create()
    pipeline = read_only(api)
    with held(tmp_path / "convertly.duckdb"), pytest.raises(PipelineStepFailed):
        pipeline.run()
    later = api.account.create()
    assert load_into(TARGET, api).rows["jobs"] == 1
    assert {(late["id"], "pending"), (later["id"], "pending")} <= set(content())
    assert content() == listed(api.account)


def test_a_pending_load_is_kept_for_its_own_dataset(serve: Serve) -> None:
    """What was read for one dataset is not written into another one."""
    api = serve(DemoAccount(50))
    load_into(TARGET, api)
    late = api.account.create()
    read_only(api)
    with pytest.raises(SettingsError, match=r"convertly_data of .* was not finished") as refused:
        load_into(OTHER, api)
    assert refused.value.setting == "state"
    load_into(TARGET, api)
    assert (late["id"], "pending") in content()
    load_into(OTHER, api)
    assert content("other") == listed(api.account)


def test_a_load_by_other_code_is_not_taken_over(serve: Serve) -> None:
    """What a user's own pipeline of that name has read is refused, until a full refresh."""
    api = serve(DemoAccount(20))
    read_only(api)
    with pytest.raises(SettingsError, match="another place was not finished"):
        load_into(TARGET, api)
    assert load_into(TARGET, api, full_refresh=True).new_jobs == 20


@pytest.mark.parametrize("is_cut_off", [False, True])
def test_a_load_that_was_cut_off_is_not_doubled(
    serve: Serve, tmp_path: Path, *, is_cut_off: bool
) -> None:
    """What was read is loaded by the next run, but a load that was begun is read again.

    dlt would write a file again that was written, but not yet noted as written: it gave two rows.
    """
    api = serve(DemoAccount(50))
    load_into(TARGET, api)
    late = api.account.create()
    read_only(api).normalize()
    if is_cut_off:
        package = next((tmp_path / "dlt").glob("pipelines/convertly/load/normalized/*"))
        [file] = package.glob("new_jobs/jobs.*.parquet")
        sql = f"INSERT INTO convertly_data_staging.jobs BY NAME SELECT * FROM '{file}'"
        with duckdb.connect(str(tmp_path / "convertly.duckdb")) as connection:
            connection.execute(sql)
        file.rename(package / "started_jobs" / file.name)
    requests = len(api.requests)
    assert load_into(TARGET, api).rows["jobs"] == is_cut_off
    assert (late["id"], "pending") in content()
    assert content() == listed(api.account)
    assert len(api.requests) - requests <= 4
