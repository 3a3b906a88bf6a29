"""A page in a real headless Chromium, and what a script in it found out."""

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

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --allow-file-access-from-files"
)
#: Longest wait for a page, on however busy a machine; seconds.
LIMIT_S = 280.0


def posted(folder: Path, name: str, flags: list[str], profile: Path) -> Any:
    """Open a page of a folder in Chromium; the JSON that a script in the page posts to /result.

    Args:
        folder: Served on loopback while the browser is open.
        name: Of the page in it.
        flags: Further ones of Chromium.
        profile: Folder for the browser's own files.
    """
    results: queue.Queue[bytes] = queue.Queue()

    class Handler(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take what the page found out."""
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
            return json.loads(results.get(timeout=LIMIT_S))
        finally:
            browser.kill()
            browser.wait()
            server.shutdown()
