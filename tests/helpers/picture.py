"""Take the picture of explore_jobs.py in the README: python tests/helpers/picture.py [FILE]."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from helpers.servers import EXPLORE_JOBS, chromium, explorer

PICTURE = EXPLORE_JOBS.with_suffix(".png")


def take(file: Path) -> None:
    """Load the demo account into a folder of its own, open it, and take the top of the page."""
    script = EXPLORE_JOBS.with_name("load_jobs.py")
    with TemporaryDirectory() as folder:
        os.environ["DLT_DATA_DIR"] = f"{folder}/dlt"
        os.chdir(folder)
        subprocess.run([sys.executable, str(script), "--demo"], check=True)
        with explorer() as url, chromium() as browser:
            page = browser.new_page(viewport={"width": 1120, "height": 880})
            page.goto(url)
            page.get_by_role("table", name="Results").wait_for()
            page.locator("[aria-roledescription=point]").first.wait_for()
            page.screenshot(path=file)


if __name__ == "__main__":
    take(Path(sys.argv[1]).resolve() if sys.argv[1:] else PICTURE)
