"""The page on this machine only: a small server on the loopback address."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from calid.errors import UsageError
from calid.view.encode import encode
from calid.view.page import linked_page
from calid.view.scene import Scene

__all__ = ["ADDRESS", "PageServer"]

ADDRESS = "127.0.0.1"
"""The only address that is listened on."""


@dataclass(frozen=True)
class _Body:
    kind: str
    content: bytes


class PageServer:
    """Serves one scene until it is closed.

    Whoever wants the page needs its whole address: it holds a token that is drawn anew for
    every server. Requests that name another host than this one are refused, so that no page
    from elsewhere can be made to read it. Nothing is read from disk.

    Parameters
    ----------
    scene
        What to show.
    port
        0 takes any free one.

    Raises
    ------
    UsageError
        If the port cannot be had.
    """

    def __init__(self, scene: Scene, port: int = 0) -> None:
        links = [f"layer-{number}" for number in range(len(scene.layers()))]
        bodies = {"": _Body("text/html; charset=utf-8", linked_page(scene, links).encode())}
        for link, layer in zip(links, scene.layers(), strict=True):
            bodies[link] = _Body("application/octet-stream", encode(layer))
        self._server = _listen(bodies, secrets.token_urlsafe(16), port)

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{ADDRESS}:{self._server.server_port}/{self._server.token}/"

    def serve(self) -> None:
        """Answer until `stop` is called, or the user interrupts."""
        self._server.serve_forever()

    def stop(self) -> None:
        """End `serve`, from another thread."""
        self._server.shutdown()

    def __enter__(self) -> PageServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.server_close()


def _listen(bodies: Mapping[str, _Body], token: str, port: int) -> _Server:
    if not 0 <= port <= 65535:
        raise UsageError("--port", f"{port} is no port.", "Use 0 to 65535; 0 takes a free one.")
    try:
        return _Server(bodies, token, port)
    except OSError as error:
        raise UsageError(
            "--port",
            f"Port {port} cannot be had: {error.strerror or error}.",
            "Choose another, or none: then a free one is taken.",
        ) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Where two servers may share a port, another program could take over ours.
    allow_reuse_address = False

    def __init__(self, bodies: Mapping[str, _Body], token: str, port: int) -> None:
        self.bodies, self.token = bodies, token
        super().__init__((ADDRESS, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "calid"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """One of the few things there are, or nothing."""
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
            return
        token, _, name = self.path.removeprefix("/").partition("/")
        body = self.server.bodies.get(name)
        # Compared in constant time, so that a token cannot be found letter by letter.
        if not hmac.compare_digest(token.encode(), self.server.token.encode()) or body is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        self._begin(HTTPStatus.OK, body.kind, len(body.content))
        if self.command == "GET":
            self.wfile.write(body.content)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal belongs to the user."""

    def _refuse(self, status: HTTPStatus) -> None:
        self._begin(status, "text/plain", 0)

    def _begin(self, status: HTTPStatus, kind: str, size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
