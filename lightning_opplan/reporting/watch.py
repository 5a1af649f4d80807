"""Serve the report of a search on this machine, renewed as its epochs end: `opplan watch`.

The search may run in another process or on another machine: its folder says all.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from typing_extensions import override

from lightning_opplan.planning.journal import Journal
from lightning_opplan.reporting.fits import Fits
from lightning_opplan.reporting.html import Page, page_of

__all__ = ["HOST", "ReportServer", "watch"]

HOST: Final = "127.0.0.1"

_POLL: Final = 1.0  # seconds between two questions of a page
_BESIDE: Final = ("deliver", "control", "grid", "study")


class ReportServer(ThreadingHTTPServer):
    """Serves the report of one search to browsers of this machine.

    Args:
        dirpath: The folder of the search.
        port: Port to listen at; 0 for any that is free.

    Raises:
        FileNotFoundError: If there is no journal in the folder.
        OSError: If the port is taken.
    """

    daemon_threads = True

    def __init__(self, dirpath: str | os.PathLike[str], *, port: int = 0) -> None:
        self.dirpath = Path(dirpath)
        Journal.of(self.dirpath).read()
        self._fits = Fits()
        self._made: tuple[str, Page] | None = None
        self._lock = threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise OSError(
                error.errno, f"Port {port} cannot be listened at ({error.strerror}). Choose another with `--port`"
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"

    def page(self) -> tuple[str, Page]:
        """Return the page as things stand, and a text that is another one once they have changed."""
        with self._lock:
            version = _version(self.dirpath)
            if self._made is None or self._made[0] != version:
                page = page_of(self.dirpath, fits=self._fits)
                data = {**page.data, "poll": _POLL, "version": version}
                self._made = version, replace(page, data=data)
            return self._made


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer

    def do_GET(self) -> None:
        # A page elsewhere must not be able to read it by a name of its own that leads here.
        host = self.headers.get("Host", "")
        if host not in {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}:
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", f"This is {self.server.url}")
            return
        place = urlsplit(self.path)
        if place.path not in ("/", "/update.json"):
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", "Not here")
            return
        try:
            version, page = self.server.page()
        except (OSError, RuntimeError) as error:  # the folder is being moved, perhaps
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", str(error))
            return
        if place.path == "/":
            self._answer(HTTPStatus.OK, "text/html", page.html())
        elif parse_qs(place.query).get("since") == [version]:
            self._answer(HTTPStatus.NO_CONTENT, "application/json", "")
        else:
            self._answer(HTTPStatus.OK, "application/json", page.update())

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # the page was closed meanwhile

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Leave the terminal alone."""


def watch(dirpath: str | os.PathLike[str], *, port: int, say: Callable[[str], None]) -> None:
    """Serve the report of a search until Ctrl-C.

    Args:
        dirpath: The folder of the search.
        port: Port to listen at; 0 for any that is free.
        say: Is told where the page is.
    """
    with ReportServer(dirpath, port=port) as server:
        say(f"Report:  {server.url} (Ctrl-C ends this, and not the search)")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            say("Ended.")


def _version(dirpath: Path) -> str:
    """A text that changes with all that the page is made of."""
    files = [dirpath / "journal.jsonl", dirpath / "status.json", *sorted(dirpath.glob("edges/*/progress.json"))]
    files += [*sorted(dirpath.glob("test*.json")), *sorted(dirpath.glob("*/test*.json"))]
    files += [dirpath / name / "journal.jsonl" for name in _BESIDE]
    marks = []
    for file in files:
        try:
            state = file.stat()
        except OSError:
            continue
        marks.append(f"{file.name} {state.st_mtime_ns} {state.st_size}")
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:16]
