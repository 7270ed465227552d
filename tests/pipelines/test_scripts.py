"""`load_jobs.py` and `backfill_jobs.py`: the command line, with the settings of the checkout."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from helpers.script import ROOT, content, listed

from convertly_source.demo import DemoAccount

SCRIPTS = {"load_jobs.py": "load", "backfill_jobs.py": "backfill"}
LOADED = {
    "load_jobs.py": "Loaded 3,000 jobs (3,000 new, 0 updated)",
    "backfill_jobs.py": "All 3,000 jobs of these windows are in convertly_data of ",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_a_command(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It has the arguments of its command, and the settings of its checkout for want of others."""
    path = ROOT / "pipelines" / script
    before = signal.getsignal(signal.SIGINT)
    try:
        with (
            patch.dict(os.environ, DLT_PROJECT_DIR="unused"),
            patch.object(sys, "argv", [str(path), "--help"]),
            pytest.raises(SystemExit) as ended,
        ):
            runpy.run_path(str(path), run_name="__main__")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 0
    assert f"usage: convertly-source {SCRIPTS[script]} " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_loads_the_demo_where_it_is_run(script: str, tmp_path: Path) -> None:
    """Run from any folder, it loads into a file there, with the settings of the checkout."""
    arguments = ["--demo", *(["--days", "60"] if "backfill" in script else [])]
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    done = subprocess.run(
        [sys.executable, ROOT / "pipelines" / script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert LOADED[script] in done.stdout
    assert content() == listed(DemoAccount())
    assert {path.name for path in tmp_path.iterdir()} == {"dlt", "convertly.duckdb"}
