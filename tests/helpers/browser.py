"""A headless Chromium that is driven through a pipe, without further packages."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
]  # fmt: skip


class NavigatedError(Exception):
    """The page has gone while it was asked."""


class Browser:
    """One page. A context manager."""

    def __init__(self, folder: Path):
        to_browser, self.output = os.pipe()
        self.input, from_browser = os.pipe()

        # It reads from the file descriptor 3 and writes to 4.
        words = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "browser", PROGRAM, *FLAGS]
        self.process = subprocess.Popen(
            [*words, f"--user-data-dir={folder}", "about:blank"], pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self.number, self.received, self.session = 0, b"", None
        self.errors = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.output)
        self.process.kill()
        self.process.wait()
        os.close(self.input)

    def call(self, method, **parameters):
        """Call a method of the DevTools protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.output, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next()
            if answer.get("id") == self.number:
                if "navigated" in answer.get("error", {}).get("message", ""):
                    raise NavigatedError
                assert "error" not in answer, answer
                return answer["result"]

    def next(self):
        while b"\0" not in self.received:
            more = os.read(self.input, 1 << 20)
            assert more, "the browser has ended"
            self.received += more
        line, _, self.received = self.received.partition(b"\0")
        message = json.loads(line)
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(message["params"]["exceptionDetails"])
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.errors.append(message["params"]["entry"])
        return message

    def look(self, width=1300, height=900, scheme="light"):
        """Set the size of the window and the colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url):
        self.call("Page.navigate", url=url)
        # The page before it is complete, too, until this one has come.
        self.wait(f"document.readyState === 'complete' && location.href === {url!r}")

    def run(self, script):
        """Return what an expression comes to in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script, seconds=60):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.run(script):
                    return
            except NavigatedError:  # asked between two pages
                pass
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}")

    def picture(self):
        """Return a PNG of the window."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])
