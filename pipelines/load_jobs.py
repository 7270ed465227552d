"""Load the jobs of a Convertly account into DuckDB, or another destination of dlt.

Each run loads what has changed since the last one. It is `convertly-source load`, with the
settings of this checkout where the current folder has none: `--help` has the arguments.
"""

import os
import sys
from pathlib import Path

if not Path(".dlt").is_dir():  # before dlt is imported
    os.environ.setdefault("DLT_PROJECT_DIR", str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("DLT_LOCAL_DIR", str(Path.cwd()))

from convertly_source.cli import main

if __name__ == "__main__":
    sys.exit(main(["load", *sys.argv[1:]]))
