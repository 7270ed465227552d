"""Load the history of a Convertly account window by window, into a destination of dlt.

A run that was killed continues with the window it was in. It is `convertly-source backfill`, with
the settings of this checkout where the current folder has none: `--help` has the arguments.
"""

import os
import sys
from pathlib import Path

if not Path(".dlt").is_dir():  # before dlt is imported
    os.environ.setdefault("DLT_PROJECT_DIR", str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("DLT_LOCAL_DIR", str(Path.cwd()))

from convertly_source.cli import main

if __name__ == "__main__":
    sys.exit(main(["backfill", *sys.argv[1:]]))
