"""The client, over both protocols, against the embedded server and against servers of other kinds."""

import base64
import contextlib
import dataclasses
import http.client
import http.server
import json
import socketserver
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenet_keras.errors import InvalidArgument, LenetKerasError, ServerUnavailable
from lenet_keras.inference.images import encode_png
from lenet_keras.serving.client import BATCH, ServingClient
from lenet_keras.serving.embedded.server import running_server
from lenet_keras.serving.endpoint import parse_url


def urls(server):
    return {
        "http": f"http://{server.host}:{server.rest_port}/v1/models/digits",
        "grpc": f"grpc://{server.host}:{server.grpc_port}/digits",
    }


@contextlib.contextmanager
def listening(handler, kind=http.server.ThreadingHTTPServer):
    """Run a server of another kind; yield its port."""
    with kind(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(params=["http", "grpc"])
def url(request, server):
    return urls(server)[request.param]


@pytest.fixture(scope="module")
def files(images):
    """The contents of PNG files of the images."""
    return [encode_png(image) for image in images]


def test_answers_are_those_of_the_newest_version(url, files, expected):
    with ServingClient(url) as client:
        assert client.wait_until_available(30) == 2
        answers = client.classify(files)
    np.testing.assert_allclose([answer.probabilities for answer in answers], expected[2], rtol=0, atol=1e-6)
    assert [answer.class_id for answer in answers] == expected[2].argmax(axis=1).tolist()
    assert {answer.version for answer in answers} == {2}
    assert answers[0].probabilities[answers[0].class_id] == pytest.approx(expected[2][0].max(), abs=1e-6)


@pytest.mark.parametrize(("which", "version"), [("/versions/1", 1), ("/labels/stable", 1), ("/labels/canary", 2)])
def test_the_version_or_label_in_the_url_answers(url, files, expected, which, version):
    with ServingClient(url + which) as client:
        answer = client.classify(files[:1])[0]
    assert answer.version == version
    np.testing.assert_allclose(answer.probabilities, expected[version][0], rtol=0, atol=1e-6)


def test_more_images_than_fit_in_one_request_are_answered_in_order(url, files, expected):
    many = [files[i % 12] for i in range(BATCH + 7)]
    with ServingClient(url) as client:
        answers = client.classify(many)
    found = [answer.class_id for answer in answers]
    assert found == [int(expected[2][i % 12].argmax()) for i in range(BATCH + 7)]


def test_images_of_any_size_are_answered(url):
    with ServingClient(url) as client:
        assert len(client.classify([encode_png(np.zeros((*size, 1), np.uint8)) for size in ((60, 31), (5, 5))])) == 2


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_client_waits_for_a_server_that_is_starting(tmp_path, exports, server, protocol, monkeypatch):
    """The model appears after the client's first request for its state."""
    with running_server(tmp_path, 0, 0, interval=0.02) as empty:
        client = ServingClient(urls(empty)[protocol])
        request, requested = client._transport.states, []

        def states():
            if not requested:
                requested.append(True)
                with pytest.raises(ServerUnavailable):
                    request()
                (tmp_path / "digits").symlink_to(exports / "digits")
                raise ServerUnavailable("not yet")
            return request()

        monkeypatch.setattr(client._transport, "states", states)
        assert client.wait_until_available(60) == 2
        client.close()


def test_a_model_that_is_not_served_is_named(url):
    message = r"nope: .*nope \(waited for 0 seconds\)"
    with (
        ServingClient(url.replace("digits", "nope")) as client,
        pytest.raises(ServerUnavailable, match=message) as refused,
    ):
        client.wait_until_available(0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/v1/models/m", "grpc://127.0.0.1:{port}/m"])
def test_a_port_without_a_server_is_one_line(url):
    with socketserver.TCPServer(("127.0.0.1", 0), None) as free:  # bound and closed: nothing listens there
        port = free.server_address[1]
    with ServingClient(url.format(port=port)) as client, pytest.raises(ServerUnavailable, match=f":{port}") as refused:
        client.wait_until_available(0)
    assert "\n" not in str(refused.value)


def test_the_port_of_the_other_protocol_is_one_line(server):
    for url in (
        f"http://{server.host}:{server.grpc_port}/v1/models/digits",
        f"grpc://{server.host}:{server.rest_port}/digits",
    ):
        with ServingClient(url, timeout=5) as client, pytest.raises(LenetKerasError) as refused:
            client.wait_until_available(0)
        assert len(str(refused.value).splitlines()) == 1
        assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n{"model_version_status": [1]}',
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\nbroken off",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nshort",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_server_of_another_kind_is_one_line(answer):
    class Nonsense(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(10_000)
            self.request.sendall(answer)

    with listening(Nonsense, socketserver.ThreadingTCPServer) as port:
        url = f"http://127.0.0.1:{port}/v1/models/m"
        with ServingClient(url, timeout=5) as client, pytest.raises(LenetKerasError) as refused:
            client.wait_until_available(0)
    assert len(str(refused.value).splitlines()) == 1


ROW = {"class_name": "bag", "class_id": 1, "probabilities": [0.25, 0.75]}


@pytest.mark.parametrize(
    "predictions",
    [
        [ROW],
        [ROW, {"class_id": 1, "probabilities": [0.25, 0.75]}],
        [ROW, {**ROW, "class_id": 2}],
        [ROW, {**ROW, "probabilities": [0.25, None]}],
        [ROW, {**ROW, "probabilities": [0.1, 0.8, 0.1]}],
        {"class_name": ["bag", "bag"]},
    ],
)
def test_answers_of_another_kind_of_model_are_one_line(predictions):
    class Server(Quiet):
        def do_GET(self, reply=None):
            reply = reply or {"model_version_status": [{"version": "1", "state": "AVAILABLE"}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET({"predictions": predictions})

    with (
        listening(Server) as port,
        ServingClient(f"http://127.0.0.1:{port}/v1/models/m") as client,
        pytest.raises(LenetKerasError) as refused,
    ):
        client.classify([b"one", b"two"])
    assert len(str(refused.value).splitlines()) == 1


def test_proxies_are_bypassed(server, files, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for url in urls(server).values():
        with ServingClient(url) as client:
            assert client.classify(files[:1])[0].version == 2


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://host/v1/models/m", "http://host:8501/v1/models/m"),
        ("http://host:80/m", "http://host:80/v1/models/m"),
        ("https://host/v1/models/m/versions/12:predict", "https://host:443/v1/models/m/versions/12"),
        ("grpc://[::1]/m/labels/stable", "grpc://[::1]:8500/v1/models/m/labels/stable"),
        ("http://host/v1/models/a%20b", "http://host:8501/v1/models/a%20b"),
        ("https://me:secret@host/in%20house/v1/models/m", "https://host:443/in%20house/v1/models/m"),
    ],
)
def test_urls_are_parsed(url, endpoint):
    assert str(parse_url(url)) == endpoint


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8501", "http://", "http://host", "http://host/", "ftp://host/m", "http://host:port/m",
     "http://host:99999/m", "http://host/v1/models/m/versions/x", "http://host/v1/models/m?a=b", "http://[::1/m",
     "http://host/a/b/c/d", "grpc://host/prefix/v1/models/m", f"http://host/v1/models/m/versions/{2**63}",
     pytest.param(f"http://host/m/versions/{'9' * 5000}", id="a version of 5000 digits")],
)  # fmt: skip
def test_a_url_of_no_model_is_refused(url):
    with pytest.raises(InvalidArgument) as refused:
        ServingClient(url)
    assert len(str(refused.value).splitlines()) == 1


@pytest.fixture
def proxy(server):
    """The port of a proxy before the server's REST, below /vision, which asks for a user and a password."""

    class Proxy(Quiet):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            expected = "Basic " + base64.b64encode("mé:a/b".encode()).decode()
            if self.headers["Authorization"] != expected or not self.path.startswith("/vision/v1/"):
                self.send_response(401)
                self.end_headers()
                return
            connection = http.client.HTTPConnection(server.host, server.rest_port, timeout=60)
            connection.request(self.command, self.path.removeprefix("/vision"), body)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

    with listening(Proxy) as port:
        yield port


def test_a_proxy_gets_the_user_the_password_and_the_path_before_the_servers(proxy, files):
    with ServingClient(f"http://m%C3%A9:a%2Fb@127.0.0.1:{proxy}/vision/v1/models/digits") as client:
        assert client.classify(files[:1])[0].version == 2
        assert "a/b" not in f"{client.endpoint} {client.endpoint!r}"


def test_a_password_is_not_shown_where_it_should_have_been_percent_encoded():
    with pytest.raises(InvalidArgument) as refused:
        parse_url("https://me:se/cret@host/v1/models/m")
    assert "cret" not in str(refused.value).partition("is not")[0]


def test_a_redirect_is_not_followed_with_the_password(proxy):
    class Redirect(Quiet):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{proxy}/vision/v1/models/digits")
            self.end_headers()

    with listening(Redirect) as port:
        url = f"http://m%C3%A9:a%2Fb@127.0.0.1:{port}/v1/models/m"
        with ServingClient(url) as client, pytest.raises(LenetKerasError, match="302 Found"):
            client.wait_until_available(0)


@pytest.mark.parametrize(
    ("user", "message"),
    [("", "asks for a user and a password"), ("me:wrong@", "does not accept that user and password")],
)
def test_a_proxy_that_refuses_is_named_and_the_password_is_not(proxy, user, message):
    url = f"http://{user}127.0.0.1:{proxy}/vision/v1/models/digits"
    with ServingClient(url) as client, pytest.raises(LenetKerasError, match=message) as refused:
        client.wait_until_available(0)
    assert "wrong" not in str(refused.value)


def test_images_of_many_pixels_are_sent_in_several_requests(url, files, monkeypatch):
    monkeypatch.setattr("lenet_keras.serving.client._PIXELS", 8000)
    with ServingClient(url) as client:
        send, sizes = client._transport.classify, []

        def classify(contents, version):
            sizes.append(len(contents))
            return send(contents, version)

        monkeypatch.setattr(client._transport, "classify", classify)
        large = encode_png(np.zeros((60, 60, 1), np.uint8))
        assert len(client.classify([large, large, large, files[0]])) == 4
    assert sizes == [2, 2]


@given(
    st.text(max_size=30)
    | st.text(max_size=20).map(lambda text: f"http://{text}")
    | st.text().map(lambda t: f"grpc://h/{t}")
)
def test_any_text_is_parsed_or_refused(text):
    try:
        endpoint = parse_url(text)
    except InvalidArgument:
        return
    assert parse_url(str(endpoint)) == dataclasses.replace(endpoint, credentials="")
