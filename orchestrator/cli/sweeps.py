"""Commands that drive a sweep: run, resume, sync, plan, status."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from rich.live import Live
from rich.markup import escape

from orchestrator.cli.application import (
    AddressOption,
    HomeOption,
    JsonOption,
    NameArgument,
    SameUriOption,
    SetOption,
    SpaceArgument,
    UriOption,
    app,
    err,
    out,
    print_json,
    say,
)
from orchestrator.home import Home
from search_spaces import load_space

PLAIN_LINE_EVERY_S = 10.0


@app.command()
def run(  # noqa: PLR0913 (options of a command)
    space: SpaceArgument,
    name: Annotated[str | None, typer.Option(help="Name of the sweep [default: the space's].")] = None,
    overrides: SetOption = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="At most this many trials at once.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Train in this process, without Ray.")] = False,
    no_early_stopping: Annotated[bool, typer.Option("--no-early-stopping", help="Let every trial end.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Continue a sweep although its plan changed; start one although a check of the teacher or the classes failed.",
        ),
    ] = False,
    home: HomeOption = None,
    tracking_uri: UriOption = None,
    address: AddressOption = None,
) -> None:
    """Run an experiment file (space); finished trainings are not repeated. Ends with the ranking and the report.

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
    tracking_uri: SameUriOption = None,
    address: AddressOption = None,
) -> None:
    """Continue a sweep with its stored plan; what has ended is not trained again."""
    from orchestrator import RunOptions, Sweep

    sweep = Sweep.stored(name, home)
    options = RunOptions(local=local, address=address, max_concurrent=max_concurrent, tracking_uri=tracking_uri)
    _run(sweep, options)


@app.command()
def sync(name: NameArgument, home: HomeOption = None, tracking_uri: SameUriOption = None) -> None:
    """Upload results that could not be sent while MLflow was offline; exit status 1 if it still does not take them."""
    from orchestrator import RunOptions, Sweep
    from orchestrator.report import Findings, write_report

    sweep = Sweep.stored(name, home)
    sweep.say = say
    options = RunOptions(tracking_uri=tracking_uri)
    if not sweep.sync(options):
        raise typer.Exit(1)
    landscape = sweep.landscape()
    sweep.log_report(options, write_report(Findings(landscape), sweep.folder.report), landscape)
    out.print(f"MLflow has all of sweep {name}: {landscape.table.run_id.notna().sum()} runs")


@app.command()
def plan(
    space: SpaceArgument,
    overrides: SetOption = None,
    probe: Annotated[bool, typer.Option("--probe", help="Measure seconds and memory of a trial (trains one).")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show what a space asks for: settings to compare, trainings, how small a difference it can find. Trains nothing."""
    from orchestrator import Sweep
    from orchestrator.describe import describe_plan
    from orchestrator.facts import plan_facts

    sweep = Sweep.from_space(space, overrides=overrides or [], home=home)
    if as_json:
        print_json(plan_facts(sweep, probe=probe, say=say))
        return
    for line in describe_plan(sweep, probe=probe, say=say):
        out.print(escape(line))


@app.command()
def status(name: NameArgument, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Say what a sweep is doing, from another terminal, without disturbing it."""
    from orchestrator import Sweep
    from orchestrator.facts import status_facts

    sweep = Sweep.stored(name, home, reading=True)
    facts = status_facts(sweep)
    if as_json:
        print_json(facts)
        return
    out.print(f"sweep {name}: {'running' if facts['running'] else 'not running'}")
    for stage, trials in facts["trials"].items():
        counts = ", ".join(f"{count} {state}" for state, count in trials.items())
        out.print(f"  {stage:8} {counts}")
    if facts["tracker_is_behind"]:
        out.print(f"  MLflow lacks some of it: lossatlas sync {name} --home {sweep.home.path}")


def _run(sweep: Any, options: Any) -> None:
    """Run with progress on the screen, then say what came out and where it lies."""
    from orchestrator.describe import describe_end
    from orchestrator.plan import why_nothing_stops
    from orchestrator.report import Findings, write_report

    sweep.say = say
    started = time.monotonic()
    if reason := why_nothing_stops(sweep.plan):
        say(f"early stopping is asked for, but stops nothing: {reason}.")
    try:
        landscape = _run_with_progress(sweep, options)
    except KeyboardInterrupt:
        command = f"lossatlas resume {sweep.plan.name} --home {sweep.home.path}{_same(options)}"
        err.print(f"\ninterrupted; nothing that ended is lost. Continue with:\n  {command}")
        raise typer.Exit(130) from None
    page = write_report(Findings(landscape), sweep.folder.report)
    sweep.log_report(options, page, landscape)
    for line in describe_end(sweep, landscape, page, time.monotonic() - started):
        out.print(escape(line))
    if (landscape.table.status == "failed").any():
        raise typer.Exit(1)


def _same(options: Any) -> str:
    """The options that a run is continued with."""
    given = {"--address": options.address, "--max-concurrent": options.max_concurrent}
    local = " --local" if options.local else ""
    return local + "".join(f" {key} {value}" for key, value in given.items() if value)


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
            say(progress.line)

    return hear


def _interrupt(number: int, frame: object) -> NoReturn:
    """A scheduler's SIGTERM ends a sweep as cleanly as Ctrl-C."""
    raise KeyboardInterrupt
