"""The page on this machine only: a small server on the loopback address."""

from __future__ import annotations

import hmac
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from calid.errors import UsageError
from calid.view.page import encode, linked_page
from calid.view.scene import Scene

__all__ = ["ADDRESS", "PageServer"]

ADDRESS = "127.0.0.1"
"""The only address that is listened on."""


class PageServer(ThreadingHTTPServer):
    """Serves one scene until it is closed.

    The page can be read only at its whole address: it holds a token that is drawn anew for
    every server. Requests that name another host than this one are refused, so that no page
    from elsewhere can be made to read it. Nothing is read from disk. Port 0 takes any free one; a
    port that does not exist or is not free is a `UsageError`.
    """

    daemon_threads = True
    # Where two servers may share a port, another program could take over ours.
    allow_reuse_address = False

    def __init__(self, scene: Scene, port: int = 0) -> None:
        if not 0 <= port <= 65535:
            raise UsageError("--port", f"{port} is no port.", "Use 0 to 65535; 0 takes a free one.")
        layers = {f"layer-{number}": layer for number, layer in enumerate(scene.layers())}
        page = linked_page(scene, list(layers)).encode()
        self.bodies = {"": ("text/html; charset=utf-8", page)}
        for link, layer in layers.items():
            self.bodies[link] = "application/octet-stream", encode(layer)
        self.token = secrets.token_urlsafe(16)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise UsageError(
                "--port",
                f"Port {port} cannot be had: {error.strerror or error}.",
                "Choose another, or none: then a free one is taken.",
            ) from error

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version = "calid"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """The page, one of its layers, or an empty refusal."""
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            self._begin(HTTPStatus.MISDIRECTED_REQUEST)
            return
        token, _, name = self.path.removeprefix("/").partition("/")
        # Compared in constant time, so that a token cannot be found letter by letter.
        known = hmac.compare_digest(token.encode(), self.server.token.encode())
        if not known or name not in self.server.bodies:
            self._begin(HTTPStatus.NOT_FOUND)
            return
        kind, content = self.server.bodies[name]
        self._begin(HTTPStatus.OK, kind, len(content))
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal belongs to the user."""

    def _begin(self, status: HTTPStatus, kind: str = "text/plain", size: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
