"""Commands that explain: doctor, inspect, losses, spaces, schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.application import (
    AddressOption,
    HomeOption,
    JsonOption,
    UriOption,
    app,
    complete_space,
    out,
    print_json,
)
from orchestrator.home import Home
from search_spaces import load_space, shipped_spaces


@app.command()
def doctor(
    space: Annotated[
        str | None,
        typer.Argument(help="Also check a space and the files that it names.", autocompletion=complete_space),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    home: HomeOption = None,
    tracking_uri: UriOption = None,
    address: AddressOption = None,
) -> None:
    """Check the machine, the home directory, the tracker and the cluster, and say what to do; status 1 if something fails."""
    from orchestrator import doctor as checks

    findings = []
    for finding in checks.examine(Home.at(home), space=space, tracking_uri=tracking_uri, address=address):
        findings.append(finding)
        if not as_json:
            advice = f"\n      -> {finding.advice}" if finding.advice else ""
            out.print(escape(f"{finding.level:5} {finding.text}{advice}"))
    if as_json:
        sys.stdout.write(checks.as_json(findings) + "\n")
    if any(finding.level == checks.FAIL for finding in findings):
        raise typer.Exit(1)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A distilled set, label store or network checkpoint: file or folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Pixel statistics of all images, not of 200.")] = False,
    stated: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="State what the file cannot tell, in lossatlas.yaml beside it."
        ),
    ] = None,
) -> None:
    """Say what a distilled set, label store or checkpoint is, and what is doubtful about it."""
    from orchestrator.extras import require_running
    from orchestrator.inspect import describe_file, inspect_file

    require_running()  # what is missing in the process that reads would look like the file's fault
    facts = inspect_file(path, full=full, stated=stated or [])
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    for line in describe_file(path, facts):
        out.print(escape(line))


@app.command()
def losses(as_json: JsonOption = False) -> None:
    """List the losses: equation, knobs, source."""
    from trainables.losses import LOSSES, SYMBOLS

    rows: list[dict[str, Any]] = [
        {"name": name, "compares": loss.space, "equation": loss.equation, "knobs": loss.knobs, "source": loss.source}
        for name, loss in LOSSES.items()
    ]
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("loss", "compares", "equation", "knobs", "source"):
        table.add_column(title, overflow="fold")
    for row in rows:
        knobs = ", ".join(row["knobs"]) or "none"
        table.add_row(row["name"], row["compares"], escape(row["equation"]), knobs, row["source"])
    out.print(table)
    for line in SYMBOLS:
        out.print(escape(line))


@app.command()
def spaces(as_json: JsonOption = False) -> None:
    """List the spaces (experiment files) that come with LossAtlas."""
    from orchestrator.cells import enumerate_cells

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "question": _first_comment(path),
            "cells": len(enumerate_cells(load_space(name)).cells),
            "path": str(path),
        }
        for name, path in shipped_spaces().items()
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        out.print(escape(f"{row['name']}: {row['question']} ({row['cells']} cells)\n  {row['path']}"))


def _first_comment(path: Path) -> str:
    """What a space is about: its first comment that is no line for editors."""
    lines = (line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    return next((line for line in lines if not line.startswith("yaml-language-server")), "")


@app.command()
def schema() -> None:
    """Print the JSON schema of space files, with which an editor completes and checks them (docs/space.md)."""
    from search_spaces.schema import schema_text

    sys.stdout.write(schema_text())
