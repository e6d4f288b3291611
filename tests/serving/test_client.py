"""The client, over both protocols, against the embedded server and against servers that are none."""

import socketserver
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenet_keras.errors import InvalidArgument, LenetKerasError
from lenet_keras.serving.client import ServingClient
from lenet_keras.serving.client.client import BATCH
from lenet_keras.serving.client.endpoint import Unavailable, parse_url
from lenet_keras.serving.embedded import serve


def urls(server):
    return {
        "http": f"http://{server.host}:{server.rest_port}/v1/models/digits",
        "grpc": f"grpc://{server.host}:{server.grpc_port}/digits",
    }


@pytest.fixture(params=["http", "grpc"])
def url(request, server):
    return urls(server)[request.param]


def test_classes_probabilities_and_version_are_the_models(url, images, expected):
    with ServingClient(url) as client:
        assert client.wait_until_available(30) == 2
        answers = client.classify(list(images))
    np.testing.assert_allclose([answer.probabilities for answer in answers], expected[2], rtol=0, atol=1e-6)
    assert [answer.class_id for answer in answers] == expected[2].argmax(axis=1).tolist()
    assert {answer.version for answer in answers} == {2}
    assert answers[0].to_json()["probability"] == pytest.approx(expected[2][0].max(), abs=1e-6)


@pytest.mark.parametrize(("which", "version"), [("/versions/1", 1), ("/labels/stable", 1), ("/labels/canary", 2)])
def test_a_version_or_label_in_the_url_is_what_is_asked(url, images, expected, which, version):
    with ServingClient(url + which) as client:
        answer = client.classify([images[0]])[0]
    assert answer.version == version
    np.testing.assert_allclose(answer.probabilities, expected[version][0], rtol=0, atol=1e-6)


def test_more_pictures_than_one_request_takes_come_back_in_order(url, images, expected):
    many = [images[i % 12] for i in range(BATCH + 7)]
    with ServingClient(url) as client:
        answers = client.classify(many)
    found = [answer.class_id for answer in answers]
    assert found == [int(expected[2][i % 12].argmax()) for i in range(BATCH + 7)]


def test_pictures_of_any_size_are_answered(url):
    with ServingClient(url) as client:
        assert len(client.classify([np.zeros((60, 31, 1), np.uint8), np.zeros((5, 5, 1), np.uint8)])) == 2


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_server_that_is_coming_up_is_waited_for(tmp_path, exports, server, protocol, monkeypatch):
    """The model appears when the client has asked for it once, in vain."""
    with serve(tmp_path, 0, 0, interval=0.02) as empty:
        client = ServingClient(urls(empty)[protocol])
        ask, asked = client._transport.states, []

        def states():
            if not asked:
                asked.append(True)
                with pytest.raises(Unavailable):
                    ask()
                (tmp_path / "digits").symlink_to(exports / "digits")
                raise Unavailable("not yet")
            return ask()

        monkeypatch.setattr(client._transport, "states", states)
        assert client.wait_until_available(60) == 2
        client.close()


def test_a_model_that_is_not_served_is_named(url):
    message = r"nope: .*nope \(asked for 0 seconds\)"
    with ServingClient(url.replace("digits", "nope")) as client, pytest.raises(Unavailable, match=message) as refused:
        client.wait_until_available(0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/v1/models/m", "grpc://127.0.0.1:{port}/m"])
def test_nobody_there_is_one_line(url):
    with socketserver.TCPServer(("127.0.0.1", 0), None) as free:  # bound and closed: nobody listens there
        port = free.server_address[1]
    with ServingClient(url.format(port=port)) as client, pytest.raises(Unavailable, match=f":{port}") as refused:
        client.wait_until_available(0)
    assert "\n" not in str(refused.value)


def test_the_other_protocols_port_is_one_line(server):
    for url in (
        f"http://{server.host}:{server.grpc_port}/v1/models/digits",
        f"grpc://{server.host}:{server.rest_port}/digits",
    ):
        with ServingClient(url, seconds=5) as client, pytest.raises(LenetKerasError) as refused:
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
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nshort",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_no_tensorflow_serving_is_one_line(answer):
    class Nonsense(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(10_000)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Nonsense) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1/models/m"
        with ServingClient(url, seconds=5) as client, pytest.raises(LenetKerasError) as refused:
            client.wait_until_available(0)
        server.shutdown()
        thread.join()
    assert len(str(refused.value).splitlines()) == 1


def test_proxies_are_not_asked(server, images, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for url in urls(server).values():
        with ServingClient(url) as client:
            assert client.classify([images[0]])[0].version == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/v1/models/m", "http://host:8501/v1/models/m"),
        ("http://host:80/m", "http://host:80/v1/models/m"),
        ("https://host/v1/models/m/versions/12:predict", "https://host:443/v1/models/m/versions/12"),
        ("grpc://[::1]/m/labels/stable", "grpc://[::1]:8500/v1/models/m/labels/stable"),
        ("http://host/v1/models/a%20b", "http://host:8501/v1/models/a%20b"),
    ],
)
def test_a_url_is_read(url, shown):
    assert str(parse_url(url)) == shown


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8501", "http://", "http://host", "http://host/", "ftp://host/m", "http://host:port/m",
     "http://host:99999/m", "http://host/v1/models/m/versions/x", "http://host/v1/models/m?a=b", "http://[::1/m",
     "http://host/a/b/c/d"],
)  # fmt: skip
def test_what_is_no_url_of_a_model_is_refused(url):
    with pytest.raises(InvalidArgument) as refused:
        ServingClient(url)
    assert len(str(refused.value).splitlines()) == 1


@given(
    st.text(max_size=30)
    | st.text(max_size=20).map(lambda text: f"http://{text}")
    | st.text().map(lambda t: f"grpc://h/{t}")
)
def test_any_text_is_a_url_or_refused(text):
    try:
        endpoint = parse_url(text)
    except InvalidArgument:
        return
    assert parse_url(str(endpoint)) == endpoint
