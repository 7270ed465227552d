"""What a load sets of dlt: small pieces, no telemetry, and nothing that a user has set."""

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dlt
import pytest
from dlt.common.runtime.telemetry import stop_telemetry
from helpers.script import ROOT, load_from, restart_dlt

from convertly_source import convertly_source
from convertly_source.demo import DEMO_KEY, DemoAccount, DemoAPI
from convertly_source.loading.settings import configure

Serve = Callable[..., DemoAPI]


@pytest.mark.parametrize(
    ("destination", "is_emptied", "workers"),
    [("duckdb", True, 2), ("sqlalchemy", True, 1), ("filesystem", False, 2)],
)
def test_dlt_gets_the_settings_that_it_lacks(
    monkeypatch: pytest.MonkeyPatch, destination: str, *, is_emptied: bool, workers: int
) -> None:
    """Staging tables are emptied where there are any, and SQLite gets one writer."""
    monkeypatch.delenv("LOAD__TRUNCATE_STAGING_DATASET")
    restart_dlt()
    dlt.config["data_writer.file_max_items"] = 7
    configure(destination)
    assert dlt.config["load.truncate_staging_dataset"] is is_emptied
    assert dlt.config["load.workers"] == workers
    assert dlt.config["data_writer.file_max_items"] == 7


@pytest.mark.parametrize(("destination", "is_packed"), [("duckdb", False), ("bigquery", True)])
def test_files_are_packed_where_they_are_sent_away(
    serve: Serve, tmp_path: Path, destination: str, *, is_packed: bool
) -> None:
    """BigQuery is sent packed files, also by a pipeline with the settings of the checkout."""
    (tmp_path / ".dlt").symlink_to(ROOT / ".dlt")
    restart_dlt()
    configure(destination)
    pipeline = dlt.pipeline("files", str(tmp_path / "p"), destination=destination)
    pipeline.config.restore_from_destination = False
    pipeline.extract(convertly_source(DEMO_KEY, serve(DemoAccount(20)).url))
    pipeline.normalize()
    [file] = (tmp_path / "p").rglob("new_jobs/rejected_jobs.*")
    assert file.read_bytes().startswith(b"\x1f\x8b") is is_packed


@pytest.mark.parametrize("section", ["sources.convertly.", "sources.", "", "unset"])
def test_extracted_files_are_plain_and_in_small_pieces(
    serve: Serve, tmp_path: Path, section: str
) -> None:
    """Files that live for seconds are not packed, and written in pieces of 500 jobs.

    A setting of the user for the size of the pieces is kept.
    """
    if section != "unset":
        setting = f"[{section}data_writer]\nbuffer_max_items = 5000\n"
        (tmp_path / ".dlt").mkdir()
        (tmp_path / ".dlt" / "config.toml").write_text(setting)
    restart_dlt()
    configure("duckdb")
    pipeline = dlt.pipeline("files", str(tmp_path / "p"), destination="duckdb")
    pipeline.extract(convertly_source(DEMO_KEY, serve(DemoAccount(1200)).url))
    [file] = (tmp_path / "p").rglob("jobs.*.typed-jsonl*")
    lines = file.read_bytes().splitlines()
    assert lines[0].startswith(b"[{")
    assert len(lines) == (3 if section == "unset" else 1)


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Receive what dlt sends to its telemetry, which starts as in a new process."""
    received = list[str]()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/events"
        monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY_ENDPOINT", address)
        monkeypatch.delenv("RUNTIME__DLTHUB_TELEMETRY")
        stop_telemetry()
        yield received
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("setting", [{}, {"RUNTIME__DLTHUB_TELEMETRY": "true"}], ids=["", "on"])
def test_telemetry_is_sent_if_it_was_turned_on(
    serve: Serve, telemetry: list[str], setting: dict[str, str]
) -> None:
    """The command line sends nothing to dlt's makers, unless a user has turned that on."""
    assert load_from(serve(DemoAccount(5)), **setting).returncode == 0
    stop_telemetry()  # it waits for what is on its way
    assert bool(telemetry) is bool(setting)
