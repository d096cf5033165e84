"""A headless Chromium that says what a page logged and asked for, driven by its own DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]

WIDTHS = (390, 1200)
MEASURE = """(() => {
    const root = document.documentElement;
    const box = element => element.getBoundingClientRect();
    const inside = element => element.closest('.scroll') === null;
    return {
        excess: root.scrollWidth - root.clientWidth,
        beyond: [...document.body.querySelectorAll('*')]
            .filter(one => inside(one) && !one.closest('svg') && box(one).right > root.clientWidth + 1)
            .map(one => one.tagName + ' ' + one.textContent.slice(0, 40)),
        figures: [...document.querySelectorAll('svg')].map(one => {
            const drawn = one.getBBox();
            return [box(one).width, box(one).height, drawn.width, one.getAttribute('aria-label')];
        }),
        small: Math.min(...[...document.querySelectorAll('svg text')].map(one => box(one).height)),
    };
})()"""
"""Of a page in its window: what sticks out, what is drawn how large."""


@dataclass
class Seen:
    """What became of one page in a window of one width."""

    logged: list[str] = field(default_factory=list)
    """Console messages, uncaught exceptions, and what the browser itself complained of."""
    requested: list[str] = field(default_factory=list)
    """Addresses that the page asked for, its own and data: left out."""
    measured: Any = None
    """The value of the script that was run in it."""
    screenshot: bytes = b""
    pdf: bytes = b""


@contextmanager
def chromium(profile: Path) -> Iterator[str]:
    """Address of the DevTools protocol of a new Chromium."""
    command = [CHROMIUM, *QUIET, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in process.stderr:
            if line.startswith("DevTools listening on "):
                yield line.removeprefix("DevTools listening on ").strip()
                break
        else:
            raise RuntimeError("Chromium ended before it listened")
    finally:
        process.terminate()
        process.communicate(timeout=20)


def look(address: str, page: Path, width: int, script: str, height: int = 900) -> Seen:
    """Open a page in a window of that width, run a script in it, print it."""
    return asyncio.run(_look(address, page, width, script, height))


async def _look(address: str, page: Path, width: int, script: str, height: int) -> Seen:
    seen, loaded, numbers, waiting = Seen(), asyncio.Event(), count(), {}

    def hear(event: str, said: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            loaded.set()
        elif event == "Runtime.consoleAPICalled":
            seen.logged.append(" ".join(str(one.get("value", one.get("description"))) for one in said["args"]))
        elif event == "Runtime.exceptionThrown":
            seen.logged.append(said["exceptionDetails"]["text"])
        elif event == "Log.entryAdded":
            seen.logged.append(said["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            url = said["request"]["url"]
            if not url.startswith("data:") and url != page.as_uri():
                seen.requested.append(url)

    async with aiohttp.ClientSession() as http, http.ws_connect(address, max_msg_size=0) as socket:

        async def listen() -> None:
            async for message in socket:
                told = json.loads(message.data)
                if "id" in told:
                    waiting.pop(told["id"]).set_result(told)
                else:
                    hear(told["method"], told["params"])

        async def ask(method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
            number = next(numbers)
            waiting[number] = asyncio.get_running_loop().create_future()
            asked = {"id": number, "method": method, "params": params}
            await socket.send_json(asked | ({"sessionId": session} if session else {}))
            answer = await asyncio.wait_for(waiting[number], timeout=60)
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']}")
            return answer["result"]

        listening = asyncio.create_task(listen())
        target = (await ask("Target.createTarget", url="about:blank"))["targetId"]
        session = (await ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await ask(f"{domain}.enable", session)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await ask("Emulation.setDeviceMetricsOverride", session, **size)
        await ask("Page.navigate", session, url=page.as_uri())
        await asyncio.wait_for(loaded.wait(), timeout=60)
        told = await ask("Runtime.evaluate", session, expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise RuntimeError(told["exceptionDetails"]["exception"]["description"])
        seen.measured = told["result"].get("value")
        shot = await ask("Page.captureScreenshot", session, captureBeyondViewport=True)
        seen.screenshot = base64.b64decode(shot["data"])
        seen.pdf = base64.b64decode((await ask("Page.printToPDF", session, preferCSSPageSize=True))["data"])
        await ask("Target.closeTarget", targetId=target)
        listening.cancel()
    return seen
