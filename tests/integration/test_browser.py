"""The report in a real headless Chromium: figures, errors, widths, contrast."""

from __future__ import annotations

import base64
import hashlib
import shutil
from pathlib import Path

import pytest

from benchmarks.browser import BROWSER, posted
from orchestrator import RunOptions, Sweep
from orchestrator.report import Findings, write_report
from tests.conftest import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt-get install chromium)"),
]
#: Runs in the page: scrolls through it, then posts what it saw.
PROBE = """
const errors = [];
window.addEventListener("error", e => errors.push(String(e.message)));
const old = console.error; console.error = (...a) => { errors.push(a.join(" ")); old(...a); };
window.addEventListener("load", async () => {
  const before = document.querySelectorAll(".plot[data-drawn]").length;
  for (const plot of document.querySelectorAll(".plot")) {
    plot.scrollIntoView();
    while (!plot.dataset.drawn && !errors.length) await new Promise(done => setTimeout(done, 50));
  }
  const plots = [...document.querySelectorAll(".plot")];
  const hovered = plots[0];
  Plotly.Fx.hover(hovered, [{curveNumber: 0, pointNumber: 0}]);
  const channel = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const contrast = [...document.querySelectorAll("p, li, td, th, figcaption, a, h1, h2, pre")].map(e => {
    const ink = light(getComputedStyle(e).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05); });
  fetch("/result", {method: "POST", body: JSON.stringify({
    errors, before, plots: plots.length, drawn: plots.filter(p => p.dataset.drawn && p.querySelector("svg")).length,
    hover: hovered.querySelectorAll(".hoverlayer .hovertext").length, contrast: Math.min(...contrast),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    dark: light(getComputedStyle(document.body).color) > paper, labelled: plots.every(p => p.getAttribute("aria-label")),
  })});
});
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, prepared_cache: Path) -> Path:
    """The report of a real sweep."""
    home = tmp_path_factory.mktemp("browser")
    shutil.copytree(prepared_cache, home / "cache")
    scientific = {"loss": ["ce", "kl", "gift"], "temperature": [1, 4], "optimizer": ["adamw", "sgd"]}
    space = {**TINY, "scientific": scientific, "fixed": {**TINY["fixed"], "epochs": 4}, "replicates": 3}
    landscape = Sweep.from_space(space, home=home).run(RunOptions(local=True, tracking_uri="off"))
    return write_report(Findings(landscape), home / "report")


def allowed(page: str, script: str) -> str:
    """The page with a script of ours that its policy allows to run and to post; everything else stays forbidden."""
    value = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    changed = page.replace("script-src ", f"connect-src 'self'; script-src 'sha256-{value}' ", 1)
    assert changed != page
    return changed.replace("<body>", f"<body><script>{script}</script>", 1)


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True)])
def test_the_page_works_in_a_browser(page: Path, width: int, dark: bool, tmp_path: Path) -> None:
    probed = page.with_name("probe.html")
    smuggled = "<script>console.error('smuggled')</script><img src=x onerror=\"console.error('smuggled')\">"
    probed.write_text(allowed(page.read_text(), PROBE).replace("</h1>", f"</h1>{smuggled}", 1))
    flags = [f"--window-size={width},900", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
    seen = posted(page.parent, probed.name, flags, tmp_path)
    assert seen["errors"] == []
    assert seen["plots"] >= 5
    assert seen["drawn"] == seen["plots"], "every figure is drawn once it was scrolled to"
    assert seen["before"] < seen["plots"], "and not before"
    assert seen["hover"] >= 1
    assert seen["contrast"] >= 4.5
    assert seen["overflow"] <= 0
    assert seen["labelled"]
    assert seen["dark"] == dark


def test_a_phone_of_390_pixels_needs_no_horizontal_scrolling(page: Path, tmp_path: Path) -> None:
    """Chromium makes no window that narrow without a head, so the page is in a frame."""
    frame = page.with_name("frame.html")
    frame.write_text(
        f"<iframe id='f' src='{page.name}' style='width:390px;height:800px;border:0'></iframe><script>"
        "document.getElementById('f').onload = async e => { const d = e.target.contentDocument;"
        "for (const plot of d.querySelectorAll('.plot')) { plot.scrollIntoView(); while (!plot.dataset.drawn) await new Promise(r => setTimeout(r, 20)); }"
        "const wide = [...d.body.querySelectorAll('*')].filter(x => !x.closest('figure, .wide') &&"
        " x.getBoundingClientRect().right > 391).map(x => x.outerHTML.slice(0, 80));"
        "fetch('/result', {method: 'POST', body: JSON.stringify("
        "{over: d.documentElement.scrollWidth - d.documentElement.clientWidth, wide})}); };</script>"
    )
    assert posted(page.parent, frame.name, [], tmp_path) == {"over": 0, "wide": []}
