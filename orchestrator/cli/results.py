"""Commands that read what came out of a sweep: table, report, compare, replay, rerun, ui."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from orchestrator.cli.application import (
    HomeOption,
    JsonOption,
    NameArgument,
    SetOption,
    UriOption,
    app,
    complete_name,
    out,
    print_json,
    say,
    writing,
)
from orchestrator.home import Home
from search_spaces import ConfigError


class TableFormat(StrEnum):
    """How `table` writes."""

    csv = "csv"
    parquet = "parquet"
    json = "json"


class FigureFormat(StrEnum):
    """How `report --figures` writes."""

    pdf = "pdf"
    png = "png"


@app.command()
def table(
    name: NameArgument,
    fmt: Annotated[TableFormat, typer.Option("--format", help="Parquet needs --out.")] = TableFormat.csv,
    to: Annotated[Path | None, typer.Option("--out", help="File to write [default: standard output].")] = None,
    home: HomeOption = None,
) -> None:
    """Write the tidy table: one row per planned trial."""
    from orchestrator import Sweep
    from orchestrator.table import as_csv

    frame = Sweep.stored(name, home, reading=True).landscape().table
    if fmt is TableFormat.parquet:
        if to is None:
            raise ConfigError("--format parquet needs --out FILE.")
        with writing(to):
            frame.to_parquet(to)
        return
    text = (
        as_csv(frame)
        if fmt is TableFormat.csv
        else frame.to_json(orient="records", indent=1, double_precision=15) + "\n"
    )
    if to is None:
        sys.stdout.write(text)
    else:
        with writing(to):
            to.write_text(text)


@app.command()
def report(  # noqa: PLR0913 (options of a command)
    name: NameArgument,
    to: Annotated[Path | None, typer.Option("--out", help="Folder [default: the sweep's own report folder].")] = None,
    latex: Annotated[bool, typer.Option("--latex", help="Also write a booktabs table, ranking.tex.")] = False,
    figures: Annotated[FigureFormat | None, typer.Option(help="Also write figures as files.")] = None,
    home: HomeOption = None,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="Read the sweep from this MLflow server first.")
    ] = None,
) -> None:
    """Write the landscape as one self-contained HTML page, with the table as CSV and parquet beside it."""
    from orchestrator import Sweep
    from orchestrator.report import Findings, write_paper, write_report

    if tracking_uri is not None:
        from orchestrator.tracking.fetch import fetch_sweep

        fetch_sweep(tracking_uri, name, Home.at(home))
    sweep = Sweep.stored(name, home, reading=True)
    folder, found = to or sweep.folder.report, Findings(sweep.landscape())
    with writing(folder):
        out.print(str(write_report(found, folder)))
        for path in write_paper(found, folder, latex=latex, figures=figures):
            out.print(str(path))


@app.command()
def compare(
    name_a: Annotated[str, typer.Argument(metavar="NAME_A", help="Name of a sweep.", autocompletion=complete_name)],
    name_b: Annotated[str, typer.Argument(metavar="NAME_B", help="Name of another one.", autocompletion=complete_name)],
    to: Annotated[Path | None, typer.Option("--out", help="Also write this CSV file.")] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Compare two sweeps: the settings in which they differ, then the cells that both have, seed by seed (A minus B)."""
    from orchestrator import Sweep
    from orchestrator.describe import describe_comparison
    from orchestrator.facts import comparison_facts
    from orchestrator.landscape.comparisons import compare_tables
    from orchestrator.table import as_csv

    a, b = (Sweep.stored(name, home, reading=True) for name in (name_a, name_b))
    try:
        compared = compare_tables(a.landscape().table, b.landscape().table)
    except ValueError as error:
        raise ConfigError(f"{name_a}, {name_b}: {error}") from error
    facts = comparison_facts(a, b, compared)
    if as_json:
        print_json(facts)
    else:
        for line in describe_comparison(facts):
            out.print(escape(line))
    if to is not None:
        with writing(to):
            to.write_text(as_csv(compared))


@app.command()
def replay(
    name: NameArgument,
    overrides: SetOption = None,
    slots: Annotated[int, typer.Option(min=1, help="Trials at once, with a virtual clock.")] = 2,
    home: HomeOption = None,
) -> None:
    """Try another early-stopping rule on a finished sweep's recorded curves: time saved, accuracy lost. Trains nothing.

    It needs trials that went to their end: `lossatlas run digits --name full --no-early-stopping`, then `lossatlas replay
    full --set early_stopping.grace_period_epochs=50`. On a sweep that was run with early stopping, only rules can be tried
    that stop no trial later than it was stopped.
    """
    from orchestrator import Sweep
    from orchestrator.describe import describe_replay

    sweep = Sweep.stored(name, home, reading=True)
    for line in describe_replay(sweep, overrides or [], slots):
        out.print(escape(line))


@app.command()
def rerun(
    run_id: Annotated[str, typer.Argument(help="MLflow run id of a trial (column run_id of `lossatlas table`).")],
    save: Annotated[Path | None, typer.Option(help="Keep the trained student's weights in this file.")] = None,
    register: Annotated[
        str | None, typer.Option(metavar="NAME", help="Register the student in MLflow, as a version of model NAME.")
    ] = None,
    home: HomeOption = None,
    tracking_uri: UriOption = None,
) -> None:
    """Train one tracked trial again and compare it with what was recorded; exit status 1 if it differs."""
    from orchestrator.rerun import rerun_trial

    outcome = rerun_trial(run_id, home=home, tracking_uri=tracking_uri, save=save, register=register, say=say)
    for name, recorded, now in outcome.compared:
        out.print(f"{name:15} recorded {recorded!r:22} now {now!r:22} {'equal' if recorded == now else 'DIFFERENT'}")
    if save:
        out.print(f"student saved to {save}")
    if outcome.version:
        out.print(f"student registered as {register}, version {outcome.version}: models:/{register}/{outcome.version}")
    elif register:
        out.print("student not registered: it is not the one that was recorded")
    if not outcome.equal:
        raise typer.Exit(1)


@app.command()
def ui(
    name: NameArgument,
    port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
    home: HomeOption = None,
) -> None:
    """Serve the MLflow UI on a sweep's store; ends with Ctrl-C."""
    from orchestrator import Sweep
    from orchestrator.tracking.address import require_agreed
    from orchestrator.tracking.client import serve_ui

    sweep = Sweep.stored(name, home, reading=True)
    if dashboard := sweep.facts.get("dashboard"):
        out.print(f"Ray dashboard while the sweep runs: http://{dashboard} (401: see `ray get-auth-token`)")
    uri = sweep.facts.get("tracking_uri") or sweep.home.store_uri
    if uri == "off":
        raise ConfigError(f"sweep {name!r} was run with --tracking-uri off; run it again without, and it is tracked.")
    require_agreed(uri, sweep.home, name)
    out.print(f"MLflow UI: http://127.0.0.1:{port}, experiment lossatlas/{name}; Ctrl-C ends it")
    raise typer.Exit(serve_ui(uri, port))
