"""Real servers for the tests, on this machine alone, each in a folder of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

import psycopg2
import pymysql
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from playwright.sync_api import Browser, sync_playwright
from s3fs import S3FileSystem

PATH = os.pathsep.join(
    [os.environ["PATH"], "/usr/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
)
BUCKET = "jobs"
PROJECT = "convertly-tests"
PACKAGES = "postgresql mariadb-server chromium"
BIGQUERY = pytest.param("bigquery", marks=[pytest.mark.slow, pytest.mark.xdist_group("bigquery")])
BIGQUERY_EMULATOR = Path(__file__).with_name("bigquery_emulator.py")
EXPLORE_JOBS = Path(__file__).resolve().parents[2] / "pipelines" / "explore_jobs.py"
QUIET = (  # chromium asks nobody for updates, lists or accounts
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    " --disable-background-networking --disable-component-update"
)


def find(program: str) -> str:
    """Find a program of the system. Without it a test is skipped, but for `.ci/run`."""
    path = shutil.which(program, path=PATH)
    if not path:
        missing = pytest.fail if "NEEDS_SERVERS" in os.environ else pytest.skip
        missing(f"{program} is not installed: apt-get install {PACKAGES}")
    return path


def find_python(variable: str, requirements: str) -> str:
    """Find the Python of an environment. Without it a test is skipped, but for `.ci/run`."""
    python = os.environ.get(variable)
    if not python:
        missing = pytest.fail if "NEEDS_SERVERS" in os.environ else pytest.skip
        missing(f"{variable} must name a Python with the packages of tests/{requirements}")
    return str(python)


def free_port() -> int:
    """Find a port that nobody uses."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def folder_of(user: str) -> Iterator[tuple[Path, partial[subprocess.Popen[bytes]]]]:
    """Make a short-named folder, and a way to start programs, as a user that is not root."""
    with TemporaryDirectory(prefix="cv", dir="/tmp") as folder:
        is_root = os.getuid() == 0
        if is_root:
            shutil.chown(folder, user)
        who = {"user": user, "group": user, "extra_groups": []} if is_root else {}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        yield Path(folder), partial(subprocess.Popen, **quiet, **who)


@contextmanager
def running(
    process: subprocess.Popen[Any],
    is_up: Callable[[], object],
    end: signal.Signals = signal.SIGTERM,
) -> Iterator[None]:
    """Wait until a server answers, and end it afterwards."""
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                is_up()
                break
            except Exception:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.1)
        yield
    finally:
        process.send_signal(end)
        process.wait()


@contextmanager
def postgres() -> Iterator[str]:
    """Run PostgreSQL on a unix socket; yield its URL."""
    with folder_of("postgres") as (folder, start):
        data = str(folder / "data")
        in_utf8 = ["--locale=C", "-E", "UTF8"]
        assert not start(
            [find("initdb"), "-A", "trust", "-U", "postgres", "--no-sync", *in_utf8, "-D", data]
        ).wait()
        options = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", str(folder)]
        url = f"postgresql://postgres:unused@localhost/postgres?host={folder}"
        server = start([find("postgres"), "-D", data, *options])
        # SIGTERM would let it wait for every client that is still connected.
        with running(server, lambda: psycopg2.connect(url).close(), signal.SIGINT):
            yield url


@contextmanager
def mariadb() -> Iterator[str]:
    """Run MariaDB on 127.0.0.1, with an empty database `convertly`; yield its URL."""
    with folder_of("mysql") as (folder, start):
        data, port = f"--datadir={folder}/data", free_port()
        install = [find("mariadb-install-db"), "--no-defaults", data, "--skip-test-db"]
        assert not start([*install, "--auth-root-authentication-method=normal"]).wait()
        options = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket"]
        options.append("--character-set-server=utf8mb4")  # as in Debian's configuration
        address: dict[str, Any] = {"host": "127.0.0.1", "port": port, "user": "root"}
        with running(
            start([find("mariadbd"), "--no-defaults", data, *options]),
            lambda: pymysql.connect(**address).close(),
        ):
            with pymysql.connect(**address) as connection:
                connection.cursor().execute("CREATE DATABASE convertly")
            yield f"mysql+pymysql://root@127.0.0.1:{port}/convertly"


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """Run an S3 service with an empty bucket; yield the environment that dlt takes it from."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with running(server, lambda: urlopen(url).close()):
        prefix = "DESTINATION__FILESYSTEM__CREDENTIALS__"
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        keys |= {"ENDPOINT_URL": url, "REGION_NAME": "us-east-1"}
        storage = S3FileSystem(key="test", secret="test", endpoint_url=url)
        storage.mkdir(BUCKET)
        yield {prefix + name: value for name, value in keys.items()} | {
            "DESTINATION__FILESYSTEM__BUCKET_URL": f"s3://{BUCKET}"
        }


@contextmanager
def bigquery() -> Iterator[dict[str, str]]:
    """Run an emulator of BigQuery; yield the environment that dlt takes it from."""
    python = find_python("BIGQUERY_EMULATOR_PYTHON", "bigquery-pins.txt")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [python, str(BIGQUERY_EMULATOR), str(port)],
            env={"PATH": os.environ["PATH"], "HOME": folder},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        health = f"http://127.0.0.1:{port}/healthz"
        with running(server, lambda: urlopen(health).close()):
            account = {
                "type": "service_account",
                "project_id": PROJECT,
                "token_uri": url + "/token",
            }
            account |= {"client_email": "tests@example.com", "private_key": key.decode()}
            yield {
                "BIGQUERY_EMULATOR_HOST": url,
                "DESTINATION__BIGQUERY__CREDENTIALS": json.dumps(account),
            }


@contextmanager
def explorer(*arguments: str, **environment: str) -> Iterator[str]:
    """Run explore_jobs.py as an app in the current folder; yield its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "marimo", "run", str(EXPLORE_JOBS), "--headless"]
    with TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--", *arguments],
            env=os.environ | {"XDG_CONFIG_HOME": folder, "XDG_STATE_HOME": folder} | environment,
            stdout=subprocess.DEVNULL,
        )
        with running(server, lambda: urlopen(url).close()):
            yield url


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's chromium without a screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find("chromium"), args=QUIET.split(), headless=True
        )
        with closing(browser):
            yield browser
