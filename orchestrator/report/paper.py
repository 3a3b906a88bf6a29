"""For papers: booktabs tables and figures as files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from orchestrator.landscape.values import cell_values
from orchestrator.report.figures import colour_range
from orchestrator.report.findings import Findings
from orchestrator.report.html import context_name
from orchestrator.report.paper_labels import DRAWINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_SPECIAL: Final = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
ALPHA: Final = 0.05
_PLANE: Final = ("temperature", "refinement")


def escape(text: object) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(_SPECIAL.get(character, character) for character in str(text))


def write_paper(found: Findings, folder: Path, *, latex: bool, figures: str | None) -> list[Path]:
    """Write what was asked for into the report's folder; nothing while no cell is confirmed."""
    if found.ranked.empty:
        return []
    tables = [write_latex(found, folder)] if latex else []
    return tables + (write_figures(found, folder, figures) if figures else [])


def write_latex(found: Findings, folder: Path) -> Path:
    """Write ranking.tex: rows are arms, columns the mean over contexts and each context, mean +- half interval in %.

    The best mean is bold only if it differs significantly (p_holm <= 0.05) from every other arm's.
    """
    path = folder / "ranking.tex"
    path.write_text("\n".join(_latex(found)) + "\n")
    return path


def _latex(found: Findings) -> Iterator[str]:
    contexts = list(found.table.attrs.get("contexts", []))
    keys = list(found.arms[contexts].drop_duplicates().itertuples(index=False)) if contexts else []
    n = sorted(set(found.ranked.n))
    seeds = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    yield "% needs \\usepackage{booktabs}"
    yield f"% test accuracy, mean +- half of the 95 % t interval over {seeds} paired seeds"
    yield f"% bold: differs from every other arm (exact sign-flip test, Holm, {ALPHA:g})"
    yield f"\\begin{{tabular}}{{l{'c' * (1 + len(keys))}}}"
    yield "\\toprule"
    heads = ["loss", "mean", *(", ".join(map(str, key)) for key in keys)]
    yield " & ".join(map(escape, heads)) + r" \\"
    yield "\\midrule"
    winner = _significant_winner(found)
    for row in found.ranked.to_dict("records"):
        mean = _entry(row["mean"], row["high"])
        cells = [_context_entry(found.arms, row["level"], contexts, key) for key in keys]
        shown = f"\\textbf{{{mean}}}" if row["level"] == winner else mean
        yield " & ".join([escape(row["level"]), shown, *cells]) + r" \\"
    yield "\\bottomrule"
    yield "\\end{tabular}"


def _entry(mean: float, high: float) -> str:
    """In percent, with the half width where there is one."""
    half = "" if math.isnan(high) else f" $\\pm$ {100 * (high - mean):.2f}"
    return f"{100 * mean:.2f}{half}"


def _context_entry(arms: pd.DataFrame, level: str, contexts: list[str], key: tuple[Any, ...]) -> str:
    mine = arms[arms.level == level]
    for name, value in zip(contexts, key, strict=True):
        mine = mine[mine[name].isna() if pd.isna(value) else mine[name] == value]
    return _entry(mine["mean"].iloc[0], mine.high.iloc[0]) if len(mine) else "--"


def _significant_winner(found: Findings) -> str | None:
    """The first arm, if it differs from all others."""
    best = found.ranked.level[0]
    mine = found.compared[(found.compared.a == best) | (found.compared.b == best)]
    return best if len(mine) and bool((mine.p_holm <= ALPHA).all()) else None


def write_figures(found: Findings, folder: Path, kind: str) -> list[Path]:
    """Write the ranking, the temperature x refinement plane and the tuning curves as files, and those about labels.

    What a sweep did not vary has no file.

    Args:
        found: Of a landscape with confirmed cells.
        folder: Exists.
        kind: "pdf" or "png".
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42})
    written = []
    for name, draw in {"ranking": _draw_ranking, "plane": _draw_plane, "tuning": _draw_tuning, **DRAWINGS}.items():
        drawing = plt.figure(figsize=(6.5, 3.2), layout="constrained")
        if draw(found, drawing):
            written.append(folder / f"{name}.{kind}")
            drawing.savefig(written[-1], dpi=200)
        plt.close(drawing)
    return written


def _draw_ranking(found: Findings, drawing: Figure) -> bool:
    axes = drawing.add_subplot()
    ranked = found.ranked.iloc[::-1]
    error = 100 * (ranked.high - ranked["mean"]).fillna(0)
    axes.errorbar(100 * ranked["mean"], ranked.level.map(_plain), xerr=error, fmt="o", color="#4477aa", capsize=3)
    axes.set_xlabel("test accuracy, % (95 % t interval over replicates)")
    axes.grid(axis="x", alpha=0.3)
    return True


def _draw_plane(found: Findings, drawing: Figure) -> bool:
    """Refinement x temperature, a row per context and a column per loss, as on the page."""
    values, contexts = cell_values(found.table), list(found.table.attrs.get("contexts", []))
    knobs = [name for name in _PLANE if name in values]
    values = values[values[knobs].notna().any(axis=1) & values["mean"].notna()] if knobs else values.iloc[:0]
    if values.empty or values.groupby(["loss", *contexts], dropna=False)[knobs].nunique().to_numpy().max() < 2:
        return False
    values = values.assign(**{name: values.get(name, pd.Series(-1, values.index)).fillna(-1) for name in _PLANE})
    levels, losses = sorted(values.refinement.unique()), list(values.loss.drop_duplicates())
    rows = list(values.groupby(contexts, sort=False, dropna=False)) if contexts else [((), values)]
    drawing.set_figheight(0.7 + 1.1 * len(rows))
    widths = [max(1, values[values.loss == loss].temperature.nunique()) for loss in losses]
    panels = drawing.subplots(len(rows), len(losses), squeeze=False, gridspec_kw={"width_ratios": widths})
    low, high = colour_range(100 * values["mean"])
    for number, (key, here) in enumerate(rows):
        line = panels[number]
        for axes, loss in zip(line, losses, strict=True):
            image = _draw_panel(axes, here[here.loss == loss], levels, (low, high))
            axes.set_title(_plain(loss) if number == 0 else "", fontsize=8)
        line[0].set_ylabel(_plain(f"{context_name(key)}\nw" if contexts else "w"), fontsize=8)
    for axes in panels[-1]:
        axes.set_xlabel("T", fontsize=8)
    for axes in panels[:, 1:].ravel():
        axes.set_yticklabels([])
    drawing.colorbar(image, ax=panels, label="test accuracy, %", extend="min")
    return True


def _draw_panel(axes: Axes, cells: pd.DataFrame, rows: list[float], span: tuple[float, float]) -> AxesImage:
    """One loss in one context; the best cell where several share T and w."""
    plane = cells.pivot_table(index="refinement", columns="temperature", values="mean", aggfunc="max")
    plane = plane.reindex(rows)
    image = axes.imshow(100 * plane, vmin=span[0], vmax=span[1], origin="lower", aspect="auto", cmap="viridis")
    axes.set_xticks(range(plane.shape[1]), [_tick(x) for x in plane.columns], fontsize=7)
    axes.set_yticks(range(plane.shape[0]), [_tick(y) for y in plane.index], fontsize=7)
    for (y, x), value in np.ndenumerate(100 * plane.to_numpy()):
        ink = "w" if value < sum(span) / 2 else "k"
        shown = "" if math.isnan(value) else f"{value:.1f}"
        axes.text(x, y, shown, ha="center", va="center", fontsize=6, color=ink)
    return image


def _tick(value: Any) -> str:
    return "–" if value < 0 else f"{value:.3g}"


def _plain(text: str) -> str:
    """Text that matplotlib prints as it stands."""
    return text.replace("$", r"\$")


def _draw_tuning(found: Findings, drawing: Figure) -> bool:
    if not found.landscape.plan.has_tune_stage:
        return False
    axes = drawing.add_subplot()
    for level in found.ranked.level:
        mine = found.tuning[found.tuning.level == level]
        axes.plot(mine.draws, 100 * mine.expected, marker="o", markersize=3, label=_plain(level))
    axes.set(xlabel="draws k", ylabel="expected best validation accuracy, %")
    axes.legend(fontsize=7, ncols=2)
    return True
