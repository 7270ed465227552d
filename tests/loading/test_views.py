"""The views for BI, on DuckDB and PostgreSQL, against figures of the account."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.figures import SQL_DATABASES, Row, assert_figures, select
from helpers.script import load_from
from helpers.warehouse import Place, load_into

from convertly_source.demo import DemoAccount, DemoAPI
from convertly_source.errors import SettingsError
from convertly_source.loading import Target

Serve = Callable[..., DemoAPI]


@SQL_DATABASES
def test_the_views_have_the_figures_of_the_account(
    serve: Serve,
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each view has what is computed here from the account's jobs, also when created again."""
    api = serve(DemoAccount(400))
    jobs = list(api.account.jobs)
    gone = api.account.unfinished()[0]
    for _ in range(2):
        done = load_from(api, *place.arguments, "--models", **place.settings)
        assert done.returncode == 0, done.stderr
        api.account.jobs = [job for job in jobs if job is not gone]

    def ask(columns: str, view: str) -> list[Row]:
        return select(place, tmp_path, monkeypatch, f"SELECT {columns} FROM {view}")

    assert_figures(ask, jobs, gone)


@SQL_DATABASES
def test_a_full_refresh_works_with_views(serve: Serve, place: Place) -> None:
    """The views do not keep a full refresh from dropping the tables."""
    api = serve(DemoAccount(60))
    for arguments in (["--models"], ["--full-refresh"], ["--models"]):
        done = load_from(api, *place.arguments, *arguments, **place.settings)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("destination", ["filesystem", "sqlalchemy"])
def test_views_are_refused_where_they_can_not_be_made(serve: Serve, destination: str) -> None:
    """A load into another destination with views is refused, before anything is asked."""
    api = serve(DemoAccount(5))
    with pytest.raises(SettingsError, match=f"can't be created in {destination}") as refused:
        load_into(Target(destination), api, views=True)
    assert "duckdb, motherduck, postgres" in refused.value.remedy
    assert refused.value.setting == "destination"
    assert not api.requests
