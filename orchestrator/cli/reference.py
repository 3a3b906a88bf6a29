"""Commands that explain: doctor, inspect, losses, spaces."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.app import AddressOption, HomeOption, UriOption, app, out
from orchestrator.home import Home
from search_spaces import load_space, shipped_spaces


@app.command()
def doctor(
    space: Annotated[str | None, typer.Argument(help="Also check a space and the files that it names.")] = None,
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
    from orchestrator.inspect import describe_file, inspect_file

    facts = inspect_file(path, full=full, stated=stated or [])
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    for line in describe_file(path, facts):
        out.print(escape(line))


@app.command()
def losses() -> None:
    """List the losses: equation, knobs, source."""
    from trainables.losses import LOSSES, SYMBOLS

    table = Table(box=None, pad_edge=False)
    for title in ("loss", "compares", "equation", "knobs", "source"):
        table.add_column(title, overflow="fold")
    for name, loss in LOSSES.items():
        table.add_row(name, loss.space, escape(loss.equation), ", ".join(loss.knobs) or "none", loss.source)
    out.print(table)
    for line in SYMBOLS:
        out.print(escape(line))


@app.command()
def spaces() -> None:
    """List the spaces that come with LossAtlas."""
    from orchestrator.cells import enumerate_cells

    for name, path in shipped_spaces().items():
        space = load_space(name)
        comment = path.read_text().splitlines()[0].lstrip("# ")
        out.print(f"{name}: {comment} ({len(enumerate_cells(space).cells)} cells)\n  {path}")
