"""The report in a real headless Chromium: figures, errors, widths, contrast."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator import RunOptions, Sweep
from orchestrator.report import write_report
from tests.conftest import TINY

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt-get install chromium)"),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --allow-file-access-from-files"
)
#: Runs in the page: scrolls through it, then posts what it saw.
PROBE = """
<script>
const errors = [];
window.addEventListener("error", e => errors.push(String(e.message)));
const old = console.error; console.error = (...a) => { errors.push(a.join(" ")); old(...a); };
window.addEventListener("load", async () => {
  const before = document.querySelectorAll(".plot[data-drawn]").length;
  for (const plot of document.querySelectorAll(".plot")) {
    plot.scrollIntoView();
    for (let i = 0; i < 100 && !plot.dataset.drawn; i++) await new Promise(done => setTimeout(done, 50));
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
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, prepared_cache: Path) -> Path:
    """The report of a real sweep."""
    home = tmp_path_factory.mktemp("browser")
    shutil.copytree(prepared_cache, home / "cache")
    scientific = {"loss": ["ce", "kl", "gift"], "temperature": [1, 4], "optimizer": ["adamw", "sgd"]}
    space = {**TINY, "scientific": scientific, "fixed": {**TINY["fixed"], "epochs": 4}, "replicates": 3}
    landscape = Sweep.from_space(space, home=home).run(RunOptions(local=True, tracking_uri="off"))
    return write_report(landscape, home / "report")


def posted(folder: Path, name: str, flags: list[str], profile: Path) -> Any:
    """Open a page of a folder in Chromium; what it posts to /result."""
    results: queue.Queue[bytes] = queue.Queue()

    class Handler(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            results.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        command = [str(BROWSER), *FLAGS.split(), f"--user-data-dir={profile}", "--remote-debugging-port=0", *flags, url]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return json.loads(results.get(timeout=100))
        finally:
            browser.kill()
            browser.wait()
            server.shutdown()


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True)])
def test_the_page_works_in_a_browser(page: Path, width: int, dark: bool, tmp_path: Path) -> None:
    probed = page.with_name("probe.html")
    probed.write_text(page.read_text().replace("<body>", f"<body>{PROBE}", 1))
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
        "for (const plot of d.querySelectorAll('.plot')) { plot.scrollIntoView(); await new Promise(r => setTimeout(r, 300)); }"
        "const wide = [...d.body.querySelectorAll('*')].filter(x => !x.closest('figure, .wide') &&"
        " x.getBoundingClientRect().right > 391).map(x => x.outerHTML.slice(0, 80));"
        "fetch('/result', {method: 'POST', body: JSON.stringify("
        "{over: d.documentElement.scrollWidth - d.documentElement.clientWidth, wide})}); };</script>"
    )
    assert posted(page.parent, frame.name, [], tmp_path) == {"over": 0, "wide": []}
