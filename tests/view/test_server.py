from __future__ import annotations

import gzip
import http.client
import socket
import threading

import pytest

from calid.errors import UsageError
from calid.view.server import PageServer
from calid.view.sources import load_scene


@pytest.fixture(scope="module")
def scene(files):
    return load_scene([files.dense], labels=files.labels)


@pytest.fixture(scope="module")
def server(scene):
    with PageServer(scene) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def place(server) -> tuple[int, str]:
    """Port and path of the page."""
    _, _, host, path = server.url.split("/", 3)
    return int(host.split(":")[1]), f"/{path}"


def ask(server, path=None, host=None, method="GET"):
    port, own = place(server)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        headers = {} if host is None else {"Host": host.format(port=port)}
        connection.request(method, own if path is None else path.format(own=own), headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def test_the_page_and_its_layers_are_there(server):
    status, content, headers = ask(server)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"CaLID viewer" in content
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    for number in range(2):
        status, content, _ = ask(server, f"{{own}}layer-{number}")
        assert status == 200
        assert gzip.decompress(content)[344:347] == b"n+1"
    assert ask(server, "{own}layer-2")[0] == 404


def test_a_head_request_gets_no_body(server):
    status, content, headers = ask(server, method="HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


def test_it_listens_on_the_loopback_address_only(server):
    port, _ = place(server)
    assert server.url.startswith("http://127.0.0.1:")
    # On another loopback address, as on any other interface, nobody answers.
    with socket.socket() as other:
        other.settimeout(5)
        assert other.connect_ex(("127.0.0.2", port)) != 0


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1:{port}", 200), ("localhost:{port}", 200), ("example.org:{port}", 421)]
    + [(host, 421) for host in ("example.org", "127.0.0.1", "127.0.0.1:1")],
)
def test_only_the_names_of_this_machine_are_answered(server, host, expected):
    status, content, _ = ask(server, host=host)
    assert status == expected
    assert bool(content) == (expected == 200)


@pytest.mark.parametrize(
    "path",
    ["/", "//", "/wrong/", "/favicon.ico", "/etc/passwd", "/%C3%A9/"]
    + ["{own}" + rest for rest in ("../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd")]
    + ["{own}" + rest for rest in ("%2e%2e/page.py", "niivue.min.js", "/etc/passwd", "?x")],
)
def test_there_is_nothing_else_to_find(server, path):
    status, content, _ = ask(server, path)
    assert (status, content) == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_sent(server, method):
    assert ask(server, method=method)[0] == 501


def test_every_server_has_a_token_of_its_own(server, scene):
    with PageServer(scene) as other:
        own, wanted = place(other)[1], place(server)[1]
    assert own != wanted
    assert len(own) > 20
    assert ask(server, own)[0] == 404


def test_a_port_that_is_taken_or_does_not_exist_is_a_usage_error(server, scene):
    for port in (place(server)[0], 70000, -1):
        with pytest.raises(UsageError):
            PageServer(scene, port)
