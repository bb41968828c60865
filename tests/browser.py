"""A headless browser, driven over its debugging port: what a visitor of a page sees."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip

# Bokeh draws in shadow trees, which innerText does not enter
TEXT = """(() => {
  const walk = node => node.nodeType === 3 ? node.data : node.nodeName === "STYLE" || node.nodeName === "SCRIPT" ? "" :
    [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes].map(walk).join(" ");
  return walk(document.body).replace(/\\s+/g, " ");
})()"""


def visit(url: str, until: str, seconds: float = 200, shot: Path | None = None, size: str = "1280,900") -> str:
    """Open the page, wait until its text holds ``until`` and return the text; a picture goes to ``shot``."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(PROGRAM), *FLAGS, f"--user-data-dir={profile}", f"--window-size={size}", url]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
            try:
                return asyncio.run(_look(Path(profile), url, until, time.monotonic() + seconds, shot))
            finally:
                browser.kill()


async def _look(profile: Path, url: str, until: str, deadline: float, shot: Path | None) -> str:
    page = await _attach(profile, url, deadline)
    text = ""
    while until not in text:
        assert time.monotonic() < deadline, f"{until!r} never showed up in: {text}"
        await asyncio.sleep(0.3)
        text = str((await _ask(page, "Runtime.evaluate", expression=TEXT))["result"].get("value", ""))
    if shot:
        await asyncio.sleep(1.5)  # the plots are drawn after the text
        picture = await _ask(page, "Page.captureScreenshot", format="png")
        shot.write_bytes(base64.b64decode(picture["data"]))
    page.close()
    return text


async def _attach(profile: Path, url: str, deadline: float) -> WebSocketClientConnection:
    from urllib.request import urlopen

    while time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        try:
            port = (profile / "DevToolsActivePort").read_text().splitlines()[0]
            with urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [page for page in json.load(answer) if page["url"] == url]
        except (OSError, IndexError):
            continue
        if pages:
            return await websocket_connect(pages[0]["webSocketDebuggerUrl"], max_message_size=2**26)
    raise AssertionError(f"the browser did not open {url}")


async def _ask(page: WebSocketClientConnection, method: str, **parameters: object) -> dict[str, Any]:
    await page.write_message(json.dumps({"id": 1, "method": method, "params": parameters}))
    while True:
        said = await page.read_message()
        assert said is not None, "the browser is gone"
        answer = json.loads(said)
        if answer.get("id") == 1:
            return answer["result"]
