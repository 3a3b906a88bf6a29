"""Documentation that is true: command blocks run, notebooks run, the site builds, pages are in its navigation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from orchestrator.cli import app
from search_spaces import load_space, shipped_spaces
from tests.conftest import TINY
from tests.trainables.formats.builders import gift

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->\s*")
PAGE_NOT_RUN = re.compile(r"<!-- no block of this page is run: (\S.*) -->")
SAVED = re.compile(r"Save this as `([\w.-]+)`")
#: What a page's commands train instead of their own spaces: the same names, seconds instead of minutes.
SMALL = {"epochs": 4, "views": 4, "width": 4}

#: Stands in for `lossatlas`: tiny spaces under the same names, a run that is there for RUN_ID, and Ray only for the plain run.
WRAPPER = """#!{python}
import os, sys
sys.path.insert(0, {root!r})
words = sys.argv[1:]
if words[0] in ("run", "plan"):
    tiny = os.path.join({spaces!r}, words[1] + ".yaml")
    words[1] = tiny if os.path.exists(tiny) else words[1]
if words[0] in ("run", "resume") and words[2:]:
    words += ["--local"]
if "RUN_ID" in words:
    from orchestrator import Sweep
    runs = Sweep.stored("digits", reading=True).landscape().table.run_id.dropna()
    words[words.index("RUN_ID")] = runs.iloc[0]
sys.argv = ["lossatlas", *words]
from orchestrator.cli import main
main()
"""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page, line: Where it begins.
        language: Behind the fence; "" is a command block.
        text: Its content.
        mark: Why it is not run; "" if it is.
        saved_as: The file that the page tells to save it as.
    """

    page: Path
    line: int
    language: str
    text: str
    mark: str
    saved_as: str


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page, with the mark or sentence before it."""
    text = page.read_text()
    whole = PAGE_NOT_RUN.search(text)
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: found.start()].rstrip("\n").rsplit("\n", 1)[-1]
        mark = NOT_RUN.fullmatch(before)
        saved = SAVED.findall(text[: found.start()].rstrip().rsplit("\n\n", 1)[-1])
        reason = mark[1] if mark else whole[1] if whole else ""
        yield Block(
            page, text.count("\n", 0, found.start()) + 1, found[1], found[2], reason, saved[-1] if saved else ""
        )


BLOCKS = [block for page in PAGES for block in blocks(page)]


def name_of(block: Block) -> str:
    return f"{block.page.relative_to(ROOT)}:{block.line}"


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    """Commands without a mark are run below; Python, and what is neither text nor a space, needs a mark."""
    if block.language == "yaml":
        document = yaml.safe_load(block.text)
        assert load_space(document, check_files=False).settings.name == document["name"]
    elif block.language != "text" and not block.mark:
        assert block.language == "", "mark it: <!-- not run: REASON -->"
        assert block.page in (ROOT / "README.md", ROOT / "docs" / "tutorial.md"), "a page whose commands no test runs"


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `lossatlas` command in a block, as far as no shell variable is in them."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("lossatlas ") and "$" not in line:
            words = re.sub(r"\s+#.*| > .*", "", line).removeprefix("lossatlas ")
            yield [word.replace("'", "") for word in re.findall(r"(?:[^\s']|'[^']*')+", words)]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark], ids=name_of)
def test_commands_that_are_not_run_exist_with_their_options(block: Block) -> None:
    group = typer.main.get_command(app)
    for words in commands(block.text):
        if words[0].startswith("-"):
            continue
        command = group.commands[words[0]]  # type: ignore[attr-defined]
        command.make_context(words[0], words[1:])


def small(document: dict[str, Any]) -> dict[str, Any]:
    """The same experiment with trainings of moments."""
    teacher = {**document["teacher"], "width": 8, "train": {"epochs": 2}}
    return {**document, "teacher": teacher, "fixed": {**document["fixed"], **SMALL}}


@pytest.fixture
def shell(home: Path, tmp_path: Path) -> dict[str, str]:
    """An environment in which `lossatlas` is the command, with tiny spaces and a home whose cache is prepared."""
    spaces, programs = tmp_path / "spaces", tmp_path / "bin"
    spaces.mkdir()
    programs.mkdir()
    rule = {"early_stopping": {"grace_period_epochs": 2}}
    for name in shipped_spaces():
        (spaces / f"{name}.yaml").write_text(yaml.safe_dump({**TINY, **rule, "name": name}))
    program = programs / "lossatlas"
    program.write_text(WRAPPER.format(python=sys.executable, root=str(ROOT), spaces=str(spaces)))
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "LOSSATLAS_HOME": str(home)}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_commands_of_a_page_run_one_after_the_other(page: str, shell: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    gift(folder, None)
    for block in blocks(ROOT / page):
        if block.language == "yaml" and block.saved_as:
            (folder / block.saved_as).write_text(yaml.safe_dump(small(yaml.safe_load(block.text))))
        if block.language or block.mark:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            done = subprocess.run(
                ["bash", "-c", line], cwd=folder, env=shell, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{name_of(block)}: {line}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    """In a process of its own: a kernel's client warns and leaves sockets to the garbage collector."""
    program = (
        "import sys, nbformat; from nbclient import NotebookClient; "
        "book = nbformat.read(sys.argv[1], as_version=4); "
        "NotebookClient(book, timeout=500, kernel_name='python3', resources={'metadata': {'path': sys.argv[2]}}).execute()"
    )
    pytest.importorskip("nbclient", reason="comes with the developers' lock: make install-dev")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_PLATFORM_DIRS": "1"}
    command = [sys.executable, "-c", program, str(path), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="comes with the developers' lock: make install-dev")
    for name in ("docs", "orchestrator", "search_spaces", "trainables"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "docstring" not in done.stdout
    page = (tmp_path / "site" / "reference" / "index.html").read_text()
    assert "orchestrator.sweep.Sweep.from_space" in page, "the reference comes from docstrings"


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    missing = [str(p.relative_to(ROOT / "docs")) for p in PAGES if p.is_relative_to(ROOT / "docs")]
    assert not [name for name in missing if f": {name}\n" not in text]


def test_the_glossary_has_the_words_that_tables_and_messages_use() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    for word in (
        "arm",
        "cell",
        "context",
        "level",
        "draw",
        "replicate",
        "trial",
        "stage",
        "label bank",
        "view",
        "space",
        "sweep",
    ):
        assert f"| **{word}** |" in text, word
