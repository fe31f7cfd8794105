"""Debian's Chromium without a window, driven by its own protocol: what a person sees, also inside of shadow roots."""

import asyncio
import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

# A page of web components hides its text from document.body.
VISIBLE_TEXT = """
(() => {
  const words = [];
  const walk = (node) => {
    if (node.nodeType === Node.TEXT_NODE) { words.push(node.textContent); return; }
    if (["STYLE", "SCRIPT", "TEMPLATE"].includes(node.tagName)) return;
    if (node.shadowRoot) walk(node.shadowRoot);
    for (const child of node.assignedNodes ? node.assignedNodes() : []) walk(child);
    for (const child of node.childNodes) walk(child);
  };
  walk(document.body);
  return words.join(" ").replace(/\\s+/g, " ");
})()
"""


@contextmanager
def started(profile: Path) -> Iterator[int]:
    """The port of a browser that listens on this machine alone."""
    program = shutil.which("chromium")
    assert program, "this test needs Debian's chromium: apt-get install chromium"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--window-size=1400,760"]
    browser = subprocess.Popen([program, *options, f"--user-data-dir={profile}"], stderr=subprocess.DEVNULL)
    try:
        port = profile / "DevToolsActivePort"
        wait(lambda: port.exists() and "\n" in port.read_text(), 60, "a browser")
        yield int(port.read_text().split("\n")[0])
    finally:
        browser.terminate()
        browser.wait(30)


def wait(ready: Any, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"no {what} in {seconds:.0f} s"
        time.sleep(0.2)


def look(port: int, url: str, words: set[str], seconds: float = 90) -> tuple[str, bytes]:
    """The text of a page and a picture of it (PNG), as soon as all these words stand in it."""
    return asyncio.run(_look(port, url, words, seconds))


async def _look(port: int, url: str, words: set[str], seconds: float) -> tuple[str, bytes]:
    async with aiohttp.ClientSession() as session:
        async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
            page = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
        async with session.ws_connect(page, max_msg_size=0) as socket:
            number = 0

            async def ask(method: str, **settings: Any) -> dict[str, Any]:
                nonlocal number
                number += 1
                await socket.send_json({"id": number, "method": method, "params": settings})
                while True:
                    told = await socket.receive_json()
                    if told.get("id") == number:
                        return told["result"]

            await ask("Page.navigate", url=url)
            end, text = time.monotonic() + seconds, ""
            while not all(word in text for word in words):
                assert time.monotonic() < end, f"{words} are not all in: {text}"
                await asyncio.sleep(0.5)
                text = str((await ask("Runtime.evaluate", expression=VISIBLE_TEXT))["result"].get("value", ""))
            await asyncio.sleep(1)  # until what moves has come to rest
            picture = await ask("Page.captureScreenshot", format="png")
            return text, base64.b64decode(picture["data"])
