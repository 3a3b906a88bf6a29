"""For papers: booktabs tables and figures as files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from orchestrator.landscape.values import cell_values
from orchestrator.report.findings import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
}
ALPHA: Final = 0.05


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
    replicates = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    yield "% needs \\usepackage{booktabs}"
    yield f"% test accuracy, mean +- half of the 95 % t interval over {replicates} paired replicates"
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
    """Write the ranking, the temperature x refinement plane (if there is one) and the tuning curves as files.

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
    for name, draw in (("ranking", _draw_ranking), ("plane", _draw_plane), ("tuning", _draw_tuning)):
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
    axes.errorbar(100 * ranked["mean"], ranked.level, xerr=error, fmt="o", color="#4477aa", capsize=3)
    axes.set_xlabel("test accuracy, % (95 % t interval over replicates)")
    axes.grid(axis="x", alpha=0.3)
    return True


def _draw_plane(found: Findings, drawing: Figure) -> bool:
    values = cell_values(found.table)
    if not {"temperature", "refinement"} <= set(values):
        return False
    values = values.dropna(subset=["temperature", "refinement", "mean"])
    losses = list(values.loss.drop_duplicates())
    if not losses:
        return False
    panels = drawing.subplots(1, len(losses), sharey=True, squeeze=False)[0]
    low, high = 100 * values["mean"].min(), 100 * values["mean"].max()
    for axes, loss in zip(panels, losses, strict=True):
        plane = values[values.loss == loss].pivot_table(index="refinement", columns="temperature", values="mean")
        image = axes.imshow(100 * plane, vmin=low, vmax=high, origin="lower", aspect="auto", cmap="viridis")
        axes.set_xticks(range(plane.shape[1]), [f"{t:g}" for t in plane.columns])
        axes.set_yticks(range(plane.shape[0]), [f"{w:.3g}" for w in plane.index])
        axes.set(title=loss, xlabel="T")
    panels[0].set_ylabel("w")
    drawing.colorbar(image, ax=list(panels), label="test accuracy, %")
    return True


def _draw_tuning(found: Findings, drawing: Figure) -> bool:
    if not found.landscape.plan.has_tune_stage:
        return False
    axes = drawing.add_subplot()
    for level in found.ranked.level:
        mine = found.tuning[found.tuning.level == level]
        axes.plot(mine.draws, 100 * mine.expected, marker="o", markersize=3, label=level)
    axes.set(xlabel="draws k", ylabel="expected best validation accuracy, %")
    axes.legend(fontsize=7, ncols=2)
    return True
