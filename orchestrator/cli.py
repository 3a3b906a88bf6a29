"""The command line: the only file that prints."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from orchestrator.home import Home
from search_spaces import ConfigError, load_space, shipped_spaces

app = typer.Typer(
    help="Map how sensitive a student trained on a distilled image dataset is to its loss.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
PLAIN_LINE_EVERY_S = 10.0

SpaceArgument = Annotated[
    str, typer.Argument(help="A shipped space (see `lossatlas spaces`) or a path to a YAML file.")
]
NameArgument = Annotated[str, typer.Argument(help="Name of a sweep in the home directory.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the space: a dotted key, a YAML value; null removes."),
]
HomeOption = Annotated[
    str | None, typer.Option("--home", help="Home directory [default: $LOSSATLAS_HOME or ./lossatlas-home].")
]
UriOption = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow server, or off [default: SQLite in the home directory].")
]
AddressOption = Annotated[str | None, typer.Option("--address", help="Ray cluster to use [default: start one here].")]


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
def run(  # noqa: PLR0913 (options of a command)
    space: SpaceArgument,
    name: Annotated[str | None, typer.Option(help="Name of the sweep [default: the space's].")] = None,
    overrides: SetOption = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="At most this many trials at once.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Train in this process, without Ray.")] = False,
    no_early_stopping: Annotated[bool, typer.Option("--no-early-stopping", help="Let every trial end.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Continue a sweep although its plan changed.")] = False,
    home: HomeOption = None,
    tracking_uri: UriOption = None,
    address: AddressOption = None,
) -> None:
    """Run a space, or what is missing of it; ends with the ranking and the report.

    The same command again trains nothing that is already done. A larger plan (more replicates, more draws, another
    loss) trains only what is new.
    """
    changes = [*(overrides or []), *(["early_stopping=null"] if no_early_stopping else [])]
    checked = load_space(space, changes)
    Home.at(home).require_writable()
    from orchestrator import RunOptions, Sweep  # loads pandas: after the checks, so that a typo is answered at once

    sweep = Sweep.from_space(checked, name=name, home=home)
    options = RunOptions(
        local=local, address=address, max_concurrent=max_concurrent, tracking_uri=tracking_uri, force=force
    )
    _run(sweep, options)


@app.command()
def resume(  # noqa: PLR0913 (options of a command)
    name: NameArgument,
    local: Annotated[bool, typer.Option("--local", help="Train in this process, without Ray.")] = False,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="At most this many trials at once.")] = None,
    home: HomeOption = None,
    tracking_uri: UriOption = None,
    address: AddressOption = None,
) -> None:
    """Continue a sweep with its stored plan; what has ended is not trained again."""
    from orchestrator import RunOptions, Sweep

    sweep = Sweep.stored(name, home)
    options = RunOptions(local=local, address=address, max_concurrent=max_concurrent, tracking_uri=tracking_uri)
    _run(sweep, options)


@app.command()
def plan(
    space: SpaceArgument,
    overrides: SetOption = None,
    probe: Annotated[bool, typer.Option("--probe", help="Measure seconds and memory of a trial (trains one).")] = False,
    home: HomeOption = None,
) -> None:
    """Show what a space asks for: cells, what was merged and why, trials, what is detectable. Trains nothing."""
    from orchestrator import Sweep
    from orchestrator.describe import describe_plan

    sweep = Sweep.from_space(space, overrides=overrides or [], home=home)
    for line in describe_plan(sweep, probe=probe, say=_say):
        out.print(escape(line))


@app.command()
def status(name: NameArgument, home: HomeOption = None) -> None:
    """Say what a sweep is doing, from another terminal, without disturbing it."""
    from orchestrator import Sweep

    sweep = Sweep.stored(name, home, reading=True)
    table = sweep.landscape().table
    out.print(f"sweep {name}: {'running' if sweep.folder.is_running else 'not running'}")
    for stage, rows in table.groupby("stage", sort=False):
        counts = ", ".join(f"{count} {state}" for state, count in rows.status.value_counts().items())
        out.print(f"  {stage:8} {counts}")


@app.command()
def table(
    name: NameArgument,
    fmt: Annotated[TableFormat, typer.Option("--format", help="Parquet needs --out.")] = TableFormat.csv,
    to: Annotated[Path | None, typer.Option("--out", help="File to write [default: standard output].")] = None,
    home: HomeOption = None,
) -> None:
    """Write the tidy table: one row per planned trial."""
    from orchestrator import Sweep

    frame = Sweep.stored(name, home, reading=True).landscape().table
    if fmt is TableFormat.parquet:
        if to is None:
            raise ConfigError("--format parquet needs --out FILE.")
        with _writing(to):
            frame.to_parquet(to)
        return
    text = (
        frame.to_csv(index=False)
        if fmt is TableFormat.csv
        else frame.to_json(orient="records", indent=1, double_precision=15) + "\n"
    )
    if to is None:
        sys.stdout.write(text)
    else:
        with _writing(to):
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
    from orchestrator.report import write_paper, write_report

    if tracking_uri is not None:
        from orchestrator.tracking import fetch_sweep

        fetch_sweep(tracking_uri, name, Home.at(home))
    sweep = Sweep.stored(name, home, reading=True)
    folder, landscape = to or sweep.folder.report, sweep.landscape()
    with _writing(folder):
        out.print(str(write_report(landscape, folder)))
        for path in write_paper(landscape, folder, latex=latex, figures=figures):
            out.print(str(path))


@app.command()
def compare(
    name_a: Annotated[str, typer.Argument(metavar="NAME_A", help="Name of a sweep.")],
    name_b: Annotated[str, typer.Argument(metavar="NAME_B", help="Name of another one.")],
    to: Annotated[Path | None, typer.Option("--out", help="Also write this CSV file.")] = None,
    home: HomeOption = None,
) -> None:
    """Compare two sweeps: cells that both have, paired by replicate; A minus B in points of test accuracy."""
    from orchestrator import Sweep
    from orchestrator.describe import describe_comparison
    from orchestrator.landscape.comparisons import compare_tables

    a, b = (Sweep.stored(name, home, reading=True).landscape().table for name in (name_a, name_b))
    try:
        compared = compare_tables(a, b)
    except ValueError as error:
        raise ConfigError(f"{name_a}, {name_b}: {error}") from error
    for line in describe_comparison(name_a, name_b, compared):
        out.print(escape(line))
    if to is not None:
        with _writing(to):
            compared.to_csv(to, index=False)


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
def rerun(
    run_id: Annotated[str, typer.Argument(help="MLflow run id of a trial (column run_id of `lossatlas table`).")],
    save: Annotated[Path | None, typer.Option(help="Keep the trained student's weights in this file.")] = None,
    home: HomeOption = None,
    tracking_uri: UriOption = None,
) -> None:
    """Train one tracked trial again and compare it with what was recorded; exit status 1 if it differs."""
    from orchestrator.rerun import rerun_trial

    outcome = rerun_trial(run_id, home=home, tracking_uri=tracking_uri, save=save, say=_say)
    for name, recorded, now in outcome.compared:
        out.print(f"{name:15} recorded {recorded!r:22} now {now!r:22} {'equal' if recorded == now else 'DIFFERENT'}")
    if save:
        out.print(f"student saved to {save}")
    if not outcome.equal:
        raise typer.Exit(1)


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


@app.command()
def ui(
    name: NameArgument,
    port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
    home: HomeOption = None,
) -> None:
    """Serve the MLflow UI on a sweep's store; ends with Ctrl-C."""
    from orchestrator import Sweep
    from orchestrator.tracking import serve_ui

    sweep = Sweep.stored(name, home, reading=True)
    if dashboard := sweep.facts.get("dashboard"):
        out.print(f"Ray dashboard while the sweep runs: http://{dashboard} (401: see `ray get-auth-token`)")
    uri = sweep.facts.get("tracking_uri") or sweep.home.store_uri
    if uri == "off":
        raise ConfigError(f"sweep {name!r} was run with --tracking-uri off; run it again without, and it is tracked.")
    out.print(f"MLflow UI: http://127.0.0.1:{port}, experiment lossatlas/{name}; Ctrl-C ends it")
    raise typer.Exit(serve_ui(uri, port))


def _run(sweep: Any, options: Any) -> None:
    """Run with progress on the screen, then say what came out and where it lies."""
    from orchestrator.describe import describe_end
    from orchestrator.report import write_report

    sweep.say = _say
    started = time.monotonic()
    try:
        landscape = _run_with_progress(sweep, options)
    except KeyboardInterrupt:
        command = f"lossatlas resume {sweep.plan.name} --home {sweep.home.path}"
        err.print(f"\ninterrupted; nothing that ended is lost. Continue with:\n  {command}")
        raise typer.Exit(130) from None
    page = write_report(landscape, sweep.folder.report)
    sweep.log_report(options, page, landscape)
    for line in describe_end(sweep, landscape, page, time.monotonic() - started):
        out.print(escape(line))
    if (landscape.table.status == "failed").any():
        raise typer.Exit(1)


def _run_with_progress(sweep: Any, options: Any) -> Any:
    """A live table on a terminal, plain lines elsewhere."""
    from orchestrator.progress import Progress

    shown: list[Live] = []

    def on_ready(conductor: Any) -> None:
        progress = Progress(conductor)
        conductor.listeners.append(progress.hear)
        if err.is_terminal:  # the console that messages go to, or they would tear the table
            shown.append(Live(progress, console=err, refresh_per_second=2))
            shown[0].start()
        else:
            conductor.listeners.append(_plain_lines(progress))

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return sweep.run(options, on_ready=on_ready)
    finally:
        for live in shown:
            live.stop()


def _plain_lines(progress: Any) -> Callable[[str, Any, Any], None]:
    """A listener that prints a line now and then; at a start, when all slots are taken."""
    last = [time.monotonic()]

    def hear(event: str, assignment: Any, detail: Any) -> None:
        if event == "start" and time.monotonic() - last[0] >= PLAIN_LINE_EVERY_S:
            last[0] = time.monotonic()
            _say(progress.line)

    return hear


def _interrupt(number: int, frame: object) -> NoReturn:
    """A scheduler's SIGTERM ends a sweep as cleanly as Ctrl-C."""
    raise KeyboardInterrupt


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """A path that cannot be written is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"--out: {path} cannot be written ({error.strerror}).") from error


def _say(text: str) -> None:
    err.print(escape(f"{time.strftime('%H:%M:%S')} {text}"))


def main() -> None:
    """Entry point of the command `lossatlas`."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except ConfigError as error:
        for problem in error.problems:
            err.print(escape(problem))
        sys.exit(2)


if __name__ == "__main__":
    main()
