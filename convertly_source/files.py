"""The files that come with the package and are no modules of it."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
IS_CHECKOUT = (CHECKOUT / "pyproject.toml").is_file()  # else installed from a wheel
TO_COPY = (
    ".dlt/config.toml",
    ".dlt/example.secrets.toml",
    "Dockerfile",
    "airflow_dag.py",
    "dbt/README.md",
    "dbt/dbt_project.yml",
    "dbt/macros/dialects.sql",
    "dbt/models/daily_jobs.sql",
    "dbt/models/failures.sql",
    "dbt/models/format_savings.sql",
    "dbt/models/job_facts.sql",
    "dbt/models/marts.yml",
    "dbt/models/sources.yml",
    "dbt/profiles.yml",
    "examples.sql",
    "github_workflow.yml",
)


def shipped(name: str) -> Path:
    """Return the path of a file: in `pipelines/` of a checkout, else in the installed package."""
    if not IS_CHECKOUT:
        return Path(__file__).with_name("files") / name
    return CHECKOUT / name if name.startswith(".dlt") else CHECKOUT / "pipelines" / name


def copy_all(folder: Path) -> tuple[list[Path], list[Path]]:
    """Copy what a user adapts into a folder; return what was written, and what was there already.

    No file is ever overwritten.
    """
    written, kept = list[Path](), list[Path]()
    for name in TO_COPY:
        file = folder / name
        if file.exists():
            kept.append(file)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(shipped(name).read_bytes())
            written.append(file)
    return written, kept
