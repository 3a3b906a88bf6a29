"""A sweep: one execution of a space, started, continued and read through this class."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.checkpoints import Checkpoints
from orchestrator.conductor import Conductor, Listener
from orchestrator.engines import choose_engine
from orchestrator.extras import require_running
from orchestrator.home import Home, SweepFolder, sqlite_uri, write_json
from orchestrator.journal import Journal, read_journal
from orchestrator.judgement import describe_data, doubts_about, mistakes_in, remarks_on
from orchestrator.landscape.landscape import Landscape
from orchestrator.plan import AUTO, Plan, difference
from orchestrator.prepare import Say, fetch_real, prepare_data, probe_costs, unusable_labels
from orchestrator.readable import require_readable
from orchestrator.recipes import TO_DOWNLOAD
from orchestrator.records import read_records
from orchestrator.remarks import remarks_about
from orchestrator.students import require_buildable
from orchestrator.table import tidy_table
from orchestrator.tracking.address import TRACKERS, agree, public_uri, require_agreed, sqlite_path
from search_spaces import ConfigError, Space, load_space
from search_spaces.files import look_again
from search_spaces.settings import NAME_PATTERN

if TYPE_CHECKING:
    from orchestrator.mirror import Mirror


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a sweep is executed; none of it changes a trial's metrics.

    Attributes:
        local: In this process, without Ray.
        address: Of a Ray cluster; None starts one on this machine.
        max_concurrent: At most this many trials at once.
        tracking_uri: Of an MLflow server; None is the store in the home directory; "off" tracks nothing.
        force: Continue although the plan shrank or changed; what no longer belongs is left out of the table.
    """

    local: bool = False
    address: str | None = None
    max_concurrent: int | None = None
    tracking_uri: str | None = None
    force: bool = False


def _numbers(versions: Any) -> dict[str, int]:
    """Versions of a plan from outside; none of plans from before there were any."""
    return {part: v for part, v in versions.items() if type(v) is int} if isinstance(versions, dict) else {}


def _silent(text: str) -> None:
    """Say nothing."""


@dataclass
class Sweep:
    """One execution of a space; has a name and a folder.

    `Sweep.from_space("digits").run().table` is the tidy table as a pandas DataFrame.

    Attributes:
        plan: What is to be run.
        home: Where everything lies.
        say: Told what is going on, in sentences.
        listeners: Hear of every trial's start, report and end; see `Conductor`.
        facts: What was found out while running: data, dashboard, seconds; for the end of a run and the report.
        tracking_uri: Of the server that a stored sweep was mirrored to; None is the store in the home directory.
    """

    plan: Plan
    home: Home
    say: Say = _silent
    listeners: list[Listener] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    tracking_uri: str | None = None
    _is_prepared: bool = field(default=False, init=False, repr=False)

    @classmethod
    def from_space(
        cls,
        space: str | Path | Mapping[str, Any] | Space,
        *,
        name: str | None = None,
        overrides: Sequence[str] = (),
        home: str | Path | None = None,
    ) -> Sweep:
        """A sweep of a space.

        Args:
            space: A shipped name, a path, the content of a space file, or a checked space.
            name: Of the sweep; the space's own by default.
            overrides: "KEY=VALUE" strings, as --set takes them.
            home: Home directory; LOSSATLAS_HOME or ./lossatlas-home by default.

        Raises:
            ConfigError: If the space has problems; nothing has been started.
        """
        from orchestrator.cluster import resolve_device

        if name is not None and not re.fullmatch(NAME_PATTERN, name):
            raise ConfigError(
                f"--name must be at most 64 letters, digits, - and _, not beginning with -, got {name!r}."
            )
        checked = space if isinstance(space, Space) else load_space(space, overrides)
        return cls(Plan(name or checked.settings.name, checked, resolve_device()), Home.at(home))

    @classmethod
    def stored(cls, name: str, home: str | Path | None = None, *, reading: bool = False) -> Sweep:
        """A sweep that was started before, with the plan it had.

        Args:
            name: Of the sweep.
            home: Where it lies.
            reading: It is only looked at, so the files that it was trained on need not be there any more.

        Raises:
            ConfigError: If there is none of that name.
        """
        place = Home.at(home)
        stored = place.existing_sweep(name).read_plan()
        space = load_space(stored["space"], check_files=not reading)
        keys, versions = stored.get("keys", {}), _numbers(stored.get("versions"))
        plan = Plan(name, space, stored["device"], keys, stored.get("resolved", {}), versions, stored.get("rates", {}))
        facts = dict(stored.get("facts", {}))
        uri = facts.get("tracking_uri") or ""
        return cls(plan, place, facts=facts, tracking_uri=None if uri.startswith("sqlite:") else uri or None)

    @property
    def folder(self) -> SweepFolder:
        """Its files."""
        return self.home.sweep(self.plan.name)

    def landscape(self) -> Landscape:
        """What is known so far."""
        from orchestrator.tracking.notes import tracked_runs

        records = read_records(self.folder.journal)
        table = tidy_table(
            self.plan, records, run_ids=tracked_runs(self.folder.tracked), running=self.folder.is_running
        )
        return Landscape(self.plan, table, records, self.facts)

    def run(
        self, options: RunOptions | None = None, *, on_ready: Callable[[Conductor], None] | None = None
    ) -> Landscape:
        """Run what is missing; the landscape at the end.

        Args:
            options: How.
            on_ready: Called once with the conductor, before the first trial.

        Raises:
            ConfigError: If the home cannot be written, the sweep is running elsewhere, or its plan is incompatible.
        """
        options = options or RunOptions()
        require_running()
        self._check_options(options)
        self.home.require_writable()
        started = time.monotonic()
        self.plan = replace(
            self.plan, stored_keys={}, stored_versions=None, stored_rates={}
        )  # what runs is this code, on these files
        self._fetch()
        with self.folder.lock():
            records = read_records(self.folder.journal)
            self._check_continues(options, records)
            self._check_compiler(options)
            self._warn_of_lost_results(records)
            self.facts |= {"sweep_id": self.facts.get("sweep_id") or uuid.uuid4().hex, "tracked": False}
            self._write_plan()
            self._resolve_engine(options)
            journal = Journal(self.folder.journal)
            try:
                conductor = Conductor(self.plan, journal, records, Checkpoints(self.folder.checkpoints))
                self._run(conductor, options, on_ready)
                self.facts["wall_s"] = self.facts.get("wall_s", 0.0) + time.monotonic() - started
            except Exception as err:
                self._explain_full_disk(journal, err)
                raise
            finally:
                journal.close()
            self._explain_full_disk(journal, None)
            self._write_plan()
        return self.landscape()

    def _fetch(self) -> None:
        """Have real data downloaded that are not there yet: they are identified by their content."""
        wanted = {made["root"]: made for made in self._still_to_download()}
        if wanted:
            fetch_real(list(wanted.values()), self.home.cache, self.say)
            look_again()
            self.plan = replace(self.plan)

    def _still_to_download(self) -> list[Mapping[str, Any]]:
        real = [made["data"] for made in self.plan.recipes.values()]
        return [data for data in real if data.get("content") == TO_DOWNLOAD]

    def _warn_of_lost_results(self, records: Sequence[Mapping[str, Any]]) -> None:
        """A journal that was cut or deleted is not the same as a sweep that never ran."""
        there = {record["trial_id"] for record in records if record["kind"] == "result"}
        sent = {record.get("trial_id") for record in read_journal(self.folder.tracked) if record["kind"] == "done"}
        if lost := len(sent - there):
            self.say(
                f"{self.folder.journal} lacks {lost} results that MLflow was sent; their trials are trained again."
            )

    def _explain_full_disk(self, journal: Journal, err: Exception | None) -> None:
        """Say what to do if the sweep ended because its journal could not be written.

        Raises:
            ConfigError: In that case.
        """
        if journal.error is not None:
            raise ConfigError(
                f"{journal.path} cannot be written ({journal.error.strerror}); all that it has is kept. Make room, then: "
                f"lossatlas resume {self.plan.name} --home {self.home.path}"
            ) from err

    def log_report(self, options: RunOptions, page: Path, landscape: Landscape) -> None:
        """Add a report to the sweep's parent run in MLflow, and each cell's mean to a run of its own trials."""
        from orchestrator.landscape.values import cell_values, confirmed
        from orchestrator.tracking.publish import log_cells, log_report

        uri = self._tracker(options)
        if not self.facts.get("tracked"):
            return
        runs = confirmed(landscape.table).dropna(subset=["run_id"]).groupby("cell").run_id.first()
        values = cell_values(landscape.table)[["cell", "mean", "low", "high", "n"]].set_index("cell")
        values = values.join(runs, how="inner")
        for problem in (
            log_report(uri, self.home, self.plan.name, sorted(page.parent.iterdir())),
            log_cells(uri, values.to_dict("records")),
        ):
            if problem:
                self.say(problem)

    def _check_options(self, options: RunOptions) -> None:
        """Refuse what cannot work, before anything is written."""
        from orchestrator.cluster import local_gpu_bytes, require_reachable

        uri = options.tracking_uri
        if uri is not None and uri != "off" and not uri.startswith(TRACKERS):
            raise ConfigError(
                f"--tracking-uri: must be off or begin with one of {', '.join(TRACKERS)}, got {public_uri(uri)!r}."
            )
        self._agree(options)
        wants_gpu = any(self.plan.resolve_device(cell) == "cuda" for cell in self.plan.cells)
        if wants_gpu and options.address is None and not local_gpu_bytes():
            raise ConfigError("fixed.device: cuda, but this machine has no GPU; use auto or cpu, or --address.")
        if not options.local:
            require_reachable(options.address)

    def _check_compiler(self, options: RunOptions) -> None:
        """Refuse compiled students where nothing can compile them."""
        from orchestrator.cluster import cpp_compiler, foreign_address

        asked = (self.plan.trial(cell, 0, 1, "confirm") for cell in self.plan.cells)
        is_here = options.local or foreign_address(options.address) is None
        if is_here and any((c.engine, c.device) == ("compiled", "cpu") for c in asked) and cpp_compiler() is None:
            raise ConfigError("fixed.engine: compiled, but there is no C++ compiler (g++, or $CXX); use auto or eager.")

    def _check_continues(self, options: RunOptions, records: Sequence[Mapping[str, Any]]) -> None:
        """Take over what is known of a sweep that continues; refuse a plan that does not contain the stored one."""
        results = [record for record in records if record["kind"] == "result"]
        first = results[0]["config"] if results else {}  # without plan.json, results say what `auto` meant for them
        self.plan = replace(self.plan, resolved={key: first[key] for key in AUTO if key in first} or None)
        if not self.folder.plan.exists():
            return
        stored = self.folder.read_plan()
        self.facts = {**stored["facts"], **self.facts}
        self.plan = replace(self.plan, device=stored["device"])
        if results and stored.get("resolved") is not None:
            self.plan = replace(self.plan, resolved=stored["resolved"])
        problems = difference(stored["signature"], self.plan.signature()) if results else []
        if problems and not options.force:
            raise ConfigError(
                [
                    f"sweep {self.plan.name!r} exists with another plan; `lossatlas run` with --name makes a new sweep, with --force goes on with this one.",
                    *(f"  {problem}" for problem in problems),
                ]
            )

    def _write_plan(self) -> None:
        write_json(
            self.folder.plan,
            {
                "space": dict(self.plan.space.document),
                "device": self.plan.device,
                "signature": self.plan.signature(),
                "keys": self.plan.data_keys,
                "rates": self.plan.rates,
                "versions": self.plan.versions,
                "resolved": self.plan.resolved,
                "facts": self.facts,
            },
        )

    def _run(self, conductor: Conductor, options: RunOptions, on_ready: Callable[[Conductor], None] | None) -> None:
        from orchestrator.mirror import Mirror

        uri = self._tracker(options)
        self.facts["tracking_uri"] = public_uri(uri)
        with Mirror(self.plan, self.home, uri, self.say) as mirror:
            conductor.listeners += [mirror.hear, *self.listeners]
            if not conductor.search.finished:
                self._prepare(options)
                conductor.note_stated(self.facts["data"])
                self._write_plan()
                if on_ready:
                    on_ready(conductor)
                self._execute(conductor, options, mirror)
        self.facts["tracking_cpu_s"] = self.facts.get("tracking_cpu_s", 0.0) + mirror.cpu_s
        self.facts["tracked"] = mirror.complete

    def _tracker(self, options: RunOptions) -> str:
        """Where a run is mirrored to; a relative path of a database is of the current folder, which may change."""
        uri = options.tracking_uri or self.tracking_uri or self.home.store_uri
        path = sqlite_path(uri)
        return uri if path is None else sqlite_uri(path.absolute())

    def _agree(self, options: RunOptions) -> None:
        """Remember a tracker that was given; refuse a stored one that never was."""
        if options.tracking_uri is not None:
            agree(options.tracking_uri)
        else:
            require_agreed(self._tracker(options), self.home, self.plan.name)

    def sync(self, options: RunOptions) -> bool:
        """Send the tracker what it lacks of a sweep that is not running; True if it now has everything.

        Raises:
            ConfigError: If the sweep is running, or was not tracked.
        """
        from orchestrator.mirror import Mirror

        uri = self._tracker(options)
        if uri == "off":
            raise ConfigError(f"sweep {self.plan.name!r} was run with --tracking-uri off; give a --tracking-uri.")
        self._check_options(replace(options, local=True))
        with self.folder.lock():
            left = self.landscape().table.status.isin(["pending", "running"]).any()
            with Mirror(self.plan, self.home, uri, self.say, interrupted=bool(left)) as mirror:
                pass
            self.facts |= {"tracking_uri": public_uri(uri), "tracked": mirror.complete}
            self._write_plan()
        return mirror.complete

    def _resolve_engine(self, options: RunOptions) -> None:
        """Find out what `auto` means for a sweep that has no results. The workers of a foreign cluster are not measured."""
        from orchestrator.cluster import foreign_address

        if self.plan.resolved is not None:
            return
        resolved: dict[str, str] = {}
        if options.local or foreign_address(options.address) is None:
            self._prepare(options)
            resolved = choose_engine(self.plan, self.facts["data"], self.home.cache, self.say)
        self.plan = replace(self.plan, resolved=resolved)
        self._write_plan()

    def _prepare(self, options: RunOptions) -> None:
        """Have the data made, once; labels wait for the workers of a foreign cluster."""
        if self._is_prepared:
            return
        from orchestrator.cluster import foreign_address

        require_buildable(self.plan, self.home.cache, self.say)
        require_readable(self.plan, self.home.cache, self.say)
        leave_labels = not options.local and foreign_address(options.address) is not None
        self.facts["data"] = prepare_data(self.plan, self.home.cache, self.say, leave_labels=leave_labels)
        self._self_test(force=options.force)
        self._is_prepared = True

    def _self_test(self, *, force: bool) -> None:
        """Say what was found out about the data; refuse what is surely wrong.

        A teacher that knows nothing of the images is the usual sign of a wrong class order or normalisation.
        """
        data = self.facts["data"]
        if refused := unusable_labels(self.plan, data):
            raise ConfigError(refused)
        known = [line for about in data.values() for line in (*describe_data(about), *remarks_about(about))]
        for line in dict.fromkeys(known):
            self.say(line)
        doubts = {key: doubts_about(about) for key, about in data.items()}
        early = {key for key, about in data.items() if "teacher_epoch" in about}
        is_known = bool(early) and not all(doubts[key] for key in early)  # an early checkpoint may know nothing
        unknowing = [key for key, found in doubts.items() if found and not (is_known and key in early)]
        mistakes = list(dict.fromkeys(mistake for about in data.values() for mistake in mistakes_in(about)))
        problems = [*mistakes, *(problem for found in doubts.values() for problem in found)]
        if (unknowing or mistakes) and not force:
            hint = "Check class_order, and the teacher's mean and std; --force runs it anyway."
            raise ConfigError([*problems, hint])
        for line in [*problems, *dict.fromkeys(remark for about in data.values() for remark in remarks_on(about))]:
            self.say(line)

    def _execute(self, conductor: Conductor, options: RunOptions, mirror: Mirror) -> None:
        if options.local:
            from orchestrator.local import run_local

            run_local(conductor, self.home.cache)
            return
        self._execute_on_ray(conductor, options, mirror)

    def _execute_on_ray(self, conductor: Conductor, options: RunOptions, mirror: Mirror) -> None:
        from orchestrator.cluster import connected, foreign_address, present_token, resolve_gpus

        if options.address:
            present_token(options.address)
        from orchestrator.labelling import label_on_ray
        from orchestrator.ray_metrics import SweepMetrics
        from orchestrator.ray_runner import Slots, run_on_ray
        from trainables.arrays import load_arrays

        self.say("starting Ray")
        with connected(options.address) as dashboard:
            self.facts["dashboard"] = dashboard
            self.say(f"Ray dashboard http://{dashboard} (if it answers 401: `ray get-auth-token` prints the token)")
            if foreign_address(options.address) is not None:
                label_on_ray(self.plan.recipes, self.home.cache, self.say)
                self.facts["data"] = prepare_data(self.plan, self.home.cache, self.say)  # labels have been added to it
                self._write_plan()
            self.facts["costs"] = probe_costs(self.plan, self.home.cache, self.say)
            gpus, cpus = self.plan.space.settings.resources.gpus, self.plan.cpus
            slots = Slots(cpus, resolve_gpus(gpus, self.plan.device, self.facts["costs"], cpus), options.max_concurrent)
            conductor.listeners.append(SweepMetrics(self.plan.name, lambda: mirror.backlog).hear)
            data = {key: load_arrays(key, self.home.cache) for key in self.plan.recipes}
            run_on_ray(conductor, data, slots=slots, storage=self.folder.path / "ray")
