# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""Look at the loaded jobs: an app, a notebook and a script in one.

    marimo run pipelines/explore_jobs.py
    marimo edit pipelines/explore_jobs.py
    python pipelines/explore_jobs.py

`convertly-source explore` runs it as an app. Add `-- --destination D --dataset S` for a load with
these options. It only reads, and only aggregates and short lists leave the database.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Convertly jobs")

with app.setup:
    import shlex
    import sys
    from datetime import date, datetime, time, timedelta, timezone
    from html import escape
    from pathlib import Path
    from tempfile import TemporaryDirectory
    from typing import Any, NoReturn

    import altair as alt
    import dlt
    import marimo as mo
    from dlt.common.destination.exceptions import DestinationUndefinedEntity
    from dlt.common.exceptions import DltException
    from dlt.destinations.exceptions import DestinationConnectionError

    from convertly_source.api.client import FINAL_STATUSES, OPEN_STATUSES
    from convertly_source.loading import Target
    from convertly_source.loading.target import describe
    from convertly_source.loading.views import MODELS, model

    Row = dict[str, Any]
    COLORS = alt.Scale(
        domain=["completed", "failed", "processing", "pending"],
        range=["#2a9d8f", "#d1495b", "#edae49", "#8d99ae"],
    )
    STYLE = """<style>
        .jobs { overflow-x: auto; font-size: 0.875rem; }
        .jobs th, .jobs td { padding: 0.2rem 1.25rem 0.2rem 0; white-space: nowrap; }
        .jobs th { text-align: left; border-bottom: 1px solid #8d99ae; font-weight: 600; }
        .jobs .number { text-align: right; font-variant-numeric: tabular-nums; }
    </style>"""


@app.function
def ask(pipeline: dlt.Pipeline, sql: str, *values: Any) -> list[Row]:
    """Ask the warehouse, over a connection that is closed at once: DuckDB has one writer.

    The views for BI go along as SQL, so they need not have been made.
    """
    views = ", ".join(f"{name} AS ({model(name)})" for name in MODELS)
    client: Any = pipeline.sql_client()
    if pipeline.destination.destination_name == "duckdb":
        client.credentials.read_only = True
    try:
        with client, client.execute_query(f"WITH {views} {sql}", *values) as cursor:
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    except DestinationConnectionError as error:
        give_up("The warehouse is missing, or a load is writing to it.", error)
    except DestinationUndefinedEntity as error:
        give_up("Nothing is loaded there yet.", error)
    except DltException as error:
        give_up("The destination does not take this SQL.", error)


@app.function
def give_up(message: str, error: Exception | None = None) -> NoReturn:
    """Say what is missing, what the database says, and the command that brings it."""
    cause = getattr(error, "inner_exc", None) or getattr(error, "dbapi_exception", None) or error
    said = [str(cause).partition("\n")[0]] if cause else []
    given = [f"--{name}={value}" for name, value in mo.cli_args().to_dict().items()]
    load = shlex.join(["convertly-source", "load", *given])
    lines = [message, *said, f"To load your account: {load}", f"Or a demo account: {load} --demo"]
    if mo.app_meta().mode == "script":
        sys.exit("\n".join(lines))
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    mo.stop(True, mo.callout(mo.Html(text), kind="warn"))  # noqa: FBT003 - marimo's way to end
    raise AssertionError


@app.function
def where(column: str, bounds: list[Any], **equal: str | None) -> tuple[str, list[Any]]:
    """Make a condition of half-open bounds, and of columns that are to have a value."""
    chosen = {name: value for name, value in equal.items() if value is not None}
    parts = [f"{column} >= %s", f"{column} < %s", *(f"{name} = %s" for name in chosen)]
    return " AND ".join(parts), [*bounds, *chosen.values()]


@app.function
def failure_rate(counts: list[Row]) -> float | None:
    """Divide the jobs that failed by those that have ended."""
    ended = sum(row["jobs"] for row in counts if row["status"] in FINAL_STATUSES)
    failed = sum(row["jobs"] for row in counts if row["status"] == "failed")
    return failed / ended if ended else None


@app.function
def shown(value: Any) -> str:
    """Write a value; times in UTC, an age in days and hours."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, timedelta):
        return f"{value.days} d {value.seconds // 3600} h"
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)


@app.function
def percent(part: float | None, of: float | None = 1) -> str:
    """Write a share."""
    return "-" if part is None or not of else f"{part / of:.1%}"


@app.function
def weight(count: float | None) -> str:
    """Write a number of bytes."""
    if count is None or abs(count) < 1000:
        return "-" if count is None else f"{count:,} B"
    size, units = count / 1000, ["kB", "MB", "GB", "TB", "PB"]
    while abs(size) >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:,.1f} {units[0]}"


@app.function
def table(name: str, rows: list[Row], *columns: str) -> mo.Html:
    """Show columns, each value as text: marimo's own table makes links and pictures of some."""
    if not rows:
        return mo.Html(f'<p aria-label="{escape(name)}">None.</p>')
    lines = [""] * (len(rows) + 1)
    for column in columns:
        values = [row[column] for row in rows]
        if all(value is None for value in values):
            continue
        kind = "number" if any(isinstance(value, int | float) for value in values) else "text"
        write = weight if column.startswith("bytes") else shown
        lines[0] += f'<th class="{kind}">{escape(column.replace("_", " "))}</th>'
        for number, value in enumerate(values, 1):
            lines[number] += f'<td class="{kind}">{escape(write(value))}</td>'
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return mo.Html(f'<div class="jobs"><table aria-label="{escape(name)}">{body}</table></div>')


@app.function
def chart(rows: list[Row], height: int) -> alt.Chart:
    """Begin a chart that is as wide as the page, and SVG, so that its figures can be read."""
    values = [
        {key: value.isoformat() if isinstance(value, date) else value for key, value in row.items()}
        for row in rows
    ]
    options = {"embedOptions": {"actions": False, "renderer": "svg"}}
    data: Any = {"values": values}
    config: Any = {"axis": {"gridColor": "#8d99ae55"}}  # faint in light and in dark
    chart = alt.Chart(data, width="container", height=height, config=config)
    return chart.properties(usermeta=options, background="transparent")


@app.function
def choice(label: str, values: list[str | None]) -> mo.ui.dropdown:
    """Offer the values that there are, and all of them together."""
    known = sorted({value for value in values if value is not None})
    return mo.ui.dropdown({"all": None} | {value: value for value in known}, "all", label=label)


@app.cell
def _():
    arguments = mo.cli_args()
    folder = TemporaryDirectory(prefix="convertly")  # the loader's own is left alone
    try:
        given = {name: str(arguments[name]) for name in Target._fields if name in arguments}
        pipeline = Target(**given).pipeline(folder.name)
        place = describe(pipeline).replace(f"{Path.cwd()}/", "")
    except DltException as error:
        give_up("The destination is not known, or has no settings.", error)
    mo.vstack([mo.md("# Convertly jobs"), mo.Html(f"{STYLE}{escape(place)}. Times are UTC.")])
    return (pipeline,)


@app.cell
def _(pipeline):
    [entire] = ask(pipeline, "SELECT MIN(created_at) AS first, MAX(created_at) AS last FROM jobs")
    if not entire["last"]:
        give_up("There are no jobs yet.")
    kinds = ask(pipeline, "SELECT DISTINCT job_type, status FROM jobs")
    runs = ask(
        pipeline,
        """
        SELECT
            finished_at, kind, listed, held, jobs_loaded, rejected, removed, open_jobs, requests
        FROM runs ORDER BY finished_at DESC LIMIT 10
        """,
    )
    return entire, kinds, runs


@app.cell
def _(runs):
    mo.stop(not runs)
    run = {name: shown(value) for name, value in runs[0].items()}
    text = f"Last run, a {run['kind']}: {run['finished_at']}, {run['listed']} jobs listed"
    is_equal = runs[0]["held"] in (None, runs[0]["listed"])
    held = "" if runs[0]["held"] is None else f", {run['held']} held"
    mo.callout(mo.Html(escape(f"{text}{held}.")), kind="success" if is_equal else "warn")


@app.cell
def _(entire, kinds):
    first, last = (entire[end].astimezone(timezone.utc).date() for end in ("first", "last"))
    period = mo.ui.date_range(first, last, (first, last), label="Created")
    job_type = choice("Job type", [row["job_type"] for row in kinds])
    status = choice("Status", [row["status"] for row in kinds])
    mo.hstack([period, job_type, status], justify="start", gap=1, wrap=True)
    return job_type, period, status


@app.cell
def _(job_type, period, status):
    begin, end = period.value[0], period.value[1] + timedelta(days=1)
    moments = [datetime.combine(day, time(), timezone.utc) for day in (begin, end)]
    jobs, values = where("created_at", moments, job_type=job_type.value, status=status.value)
    days, day_values = where("day", [begin, end], job_type=job_type.value)
    return day_values, days, jobs, values


@app.cell
def _(day_values, days, pipeline, status):
    any_status = ask(
        pipeline,
        f"""
        SELECT
            day,
            status,
            CAST(SUM(jobs) AS BIGINT) AS jobs,
            CAST(SUM(removed_jobs) AS BIGINT) AS removed_jobs
        FROM daily_jobs WHERE {days} GROUP BY day, status ORDER BY day, status
        """,
        *day_values,
    )
    by_day = [row for row in any_status if status.value in (None, row["status"])]
    return any_status, by_day


@app.cell
def _(jobs, pipeline, values):
    by_type = ask(
        pipeline,
        f"""
        SELECT
            job_type,
            COUNT(*) AS jobs,
            PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY duration_seconds) AS p50_seconds,
            PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY duration_seconds) AS p95_seconds,
            CAST(SUM(bytes_in) AS BIGINT) AS bytes_in,
            CAST(SUM(bytes_saved) AS BIGINT) AS bytes_saved
        FROM job_facts WHERE {jobs} GROUP BY job_type ORDER BY job_type
        """,
        *values,
    )
    return (by_type,)


@app.cell
def _(any_status, by_day, by_type):
    bytes_in, bytes_saved = (
        sum(row[name] or 0 for row in by_type) for name in ("bytes_in", "bytes_saved")
    )
    unfinished = [row for row in by_day if row["status"] in OPEN_STATUSES]
    open_jobs = sum(row["jobs"] - row["removed_jobs"] for row in unfinished)
    figures = {
        "Jobs": (shown(sum(row["jobs"] for row in by_day)), "as chosen above"),
        "Failure rate": (percent(failure_rate(any_status)), "of jobs that ended"),
        "Open": (shown(open_jobs), "pending or processing"),
        "Saved": (weight(bytes_saved), f"{percent(bytes_saved, bytes_in)} of {weight(bytes_in)}"),
    }
    stats = [mo.stat(value, name, text, bordered=True) for name, (value, text) in figures.items()]
    mo.hstack(stats, widths="equal", wrap=True)
    return (figures,)


@app.cell
def _(any_status, by_day):
    day = alt.X("day:T", title=None, scale=alt.Scale(type="utc"))
    color = alt.Color("status:N", title=None, legend=alt.Legend(orient="top"), scale=COLORS)
    jobs_axis = alt.Y("jobs:Q", title="jobs", axis=alt.Axis(minExtent=40))
    per_day = chart(by_day, 200).mark_bar().encode(day, jobs_axis, color)
    rates = [
        {"day": one, "rate": failure_rate([row for row in any_status if row["day"] == one])}
        for one in sorted({row["day"] for row in any_status})
    ]
    rate_axis = alt.Axis(minExtent=40, format="%", tickCount=3)
    rate = chart(rates, 100).mark_line(color=COLORS.range[1])
    rate = rate.encode(day, alt.Y("rate:Q", title="failure rate", axis=rate_axis))
    mo.vstack([mo.md("## Jobs per day"), per_day, rate])


@app.cell
def _(by_type):
    spans = [
        {"job_type": row["job_type"], "of": name, "seconds": row[f"{name}_seconds"]}
        for row in by_type
        for name in ("p50", "p95")
    ]
    points = (
        chart(spans, 30 * len(by_type) + 10)
        .mark_point(filled=True, size=90)
        .encode(
            alt.X("seconds:Q"),
            alt.Y("job_type:N", title=None),
            alt.Color("of:N", title=None, legend=alt.Legend(orient="top")),
        )
    )
    columns = ("job_type", "jobs", "p50_seconds", "p95_seconds")
    mo.vstack([mo.md("## Duration by type"), points, table("Durations", by_type, *columns)])


@app.cell
def _(jobs, pipeline, values):
    queue = ask(
        pipeline,
        f"""
        SELECT id, job_type, status, created_at, progress, completed_files, total_files FROM jobs
        WHERE {jobs} AND status IN ('pending', 'processing')
        AND NOT EXISTS (SELECT 1 FROM removed_jobs WHERE removed_jobs.id = jobs.id)
        ORDER BY created_at, id LIMIT 20
        """,
        *values,
    )
    now = datetime.now(timezone.utc)
    aged = [row | {"age": now - row["created_at"]} for row in queue]
    columns_of_queue = ("age", "status", "progress", "completed_files", "total_files")
    mo.vstack(
        [
            mo.md("## Queue\n\nJobs that were open at the last load, the 20 oldest."),
            table("Queue", aged, *columns_of_queue, "job_type", "created_at", "id"),
        ]
    )


@app.cell
def _(jobs, pipeline, values):
    formats = ask(
        pipeline,
        f"""
        SELECT
            mime_type,
            COUNT(*) AS files,
            CAST(SUM(original_size) AS BIGINT) AS bytes_in,
            CAST(SUM(final_size) AS BIGINT) AS bytes_out,
            CAST(SUM(original_size - final_size) AS BIGINT) AS bytes_saved
        FROM jobs__results JOIN jobs ON jobs.id = job_id
        WHERE {jobs} AND original_size IS NOT NULL AND final_size IS NOT NULL
        GROUP BY mime_type ORDER BY bytes_in DESC LIMIT 12
        """,
        *values,
    )
    mo.vstack(
        [
            mo.md("## Bytes by format\n\nFiles whose size before and after is known."),
            table("Formats", formats, "mime_type", "files", "bytes_in", "bytes_out", "bytes_saved"),
        ]
    )


@app.cell
def _(jobs, pipeline, values):
    slowest = ask(
        pipeline,
        f"""
        SELECT id, job_type, status, created_at, duration_seconds, bytes_in FROM job_facts
        WHERE id IN (
            SELECT id FROM jobs WHERE {jobs} AND completed_at IS NOT NULL
            ORDER BY completed_at - created_at DESC, id LIMIT 10
        ) ORDER BY duration_seconds DESC, id
        """,
        *values,
    )
    columns_of_slow = ("duration_seconds", "bytes_in", "job_type", "status", "created_at", "id")
    mo.vstack([mo.md("## Slowest jobs"), table("Slowest jobs", slowest, *columns_of_slow)])
    return (slowest,)


@app.cell
def _(jobs, pipeline, values):
    failed = ask(
        pipeline,
        f"""
        SELECT id, job_type, created_at, failed_files, total_files, error_message FROM failures
        WHERE {jobs} ORDER BY created_at DESC, id LIMIT 20
        """,
        *values,
    )
    columns_of_failed = ("created_at", "job_type", "error_message", "failed_files", "total_files")
    mo.vstack(
        [
            mo.md("## Failed jobs\n\nOr with files that failed, the latest 20."),
            table("Failed jobs", failed, *columns_of_failed, "id"),
        ]
    )


@app.cell
def _(jobs, pipeline, values):
    removed = ask(
        pipeline,
        f"""
        SELECT id, job_type, status, created_at, removed_at FROM job_facts
        WHERE {jobs} AND removed_at IS NOT NULL ORDER BY removed_at DESC, id LIMIT 20
        """,
        *values,
    )
    columns_of_removed = ("removed_at", "status", "job_type", "created_at", "id")
    mo.vstack(
        [
            mo.md("## Removed jobs\n\nNo longer listed, with their last status, the latest 20."),
            table("Removed jobs", removed, *columns_of_removed),
        ]
    )


@app.cell
def _(slowest):
    slow = slowest[0]["id"] if slowest else ""
    job_id = mo.ui.text(slow, placeholder="the id of a job", label="Job", full_width=True)
    mo.vstack([mo.md("## Results of a job"), job_id])
    return (job_id,)


@app.cell
def _(job_id, pipeline):
    results = ask(
        pipeline,
        """
        SELECT
            filename, mime_type, original_size AS bytes_in, final_size AS bytes_out,
            size_bytes AS bytes, saved_percent, value, download_url
        FROM jobs__results WHERE job_id = %s ORDER BY _dlt_list_idx LIMIT 100
        """,
        job_id.value.strip(),
    )
    columns_of_files = ("filename", "mime_type", "bytes_in", "bytes_out", "bytes", "saved_percent")
    table("Results", results, *columns_of_files, "value", "download_url")


@app.cell
def _(runs):
    columns_of_runs = [*runs[0]] if runs else []
    mo.vstack([mo.md("## Runs\n\nThe latest 10."), table("Runs", runs, *columns_of_runs)])


@app.cell
def _(by_type, figures):
    if mo.app_meta().mode == "script":
        for name, (value, caption) in figures.items():
            print(f"{name}: {value} ({caption})")
        for row in by_type:
            seconds = f"p50 {shown(row['p50_seconds'])} s, p95 {shown(row['p95_seconds'])} s"
            print(f"{shown(row['job_type'])}: {row['jobs']:,} jobs, {seconds}")


if __name__ == "__main__":
    app.run()
