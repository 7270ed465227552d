"""What the documentation holds: code blocks, tables and links."""

import re
from pathlib import Path
from typing import NamedTuple

from helpers.script import README, ROOT

PIPELINES = ROOT / "pipelines" / "README.md"
PACKAGE = ROOT / "convertly_source" / "README.md"
BENCHMARKS = ROOT / "tests" / "benchmarks" / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
CHANGELOG = ROOT / "CHANGELOG.md"
USER_DOCS = (README, PIPELINES, PACKAGE)
DOCS = (*USER_DOCS, BENCHMARKS, CONTRIBUTING, CHANGELOG)


class Block(NamedTuple):
    """A code block, and the output that is shown right below it."""

    language: str
    text: str
    output: str | None


def blocks(file: Path, *languages: str) -> list[Block]:
    """Return the code blocks in these languages, in order; by default in all but `text`."""
    pattern = r"^```(\w+)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?"
    found = re.findall(pattern, file.read_text(), re.MULTILINE | re.DOTALL)
    return [
        Block(language, text, output or None)
        for language, text, output in found
        if language in (languages or {language})
    ]


def commands(file: Path) -> list[str]:
    """Return the commands in code blocks, in crontabs, and in the text."""
    lines = [line for block in blocks(file, "sh", "crontab") for line in block.text.splitlines()]
    programs = "airflow|convertly-source|make|marimo|pip|python"
    text = re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(rf"`((?:{programs}) [^`]+)`", text)
    return [command for line in lines for command in line.split(" && ")]


def table(file: Path, *header: str) -> list[list[str]]:
    """Return the cells of the rows of the table that has this header."""
    _, _, rest = file.read_text().partition(f"| {' | '.join(header)} |\n")
    assert rest, f"{file} has no table of {header}"
    lines = rest.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def names(cell: str) -> list[str]:
    """Return what a cell has in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def links(file: Path) -> list[str]:
    """Return the targets of links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", file.read_text())


def anchors(file: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
