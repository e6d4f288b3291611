"""Thousands of hostile requests: each is answered, none with a 5xx, and the server keeps running."""

import base64
import http.client
import io
import json
import random
import re
import socket
import threading
from pathlib import Path

import grpc
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorflow_serving.apis import predict_pb2

BODIES, PATHS, MESSAGES, CONNECTIONS = 1400, 400, 200, 60  # times --repeats
ODD = [None, True, False, 0, -1, 1.5, 10**30, -(10**400), float("nan"), float("inf"), "", "a", "\x00", "\ud800", [], {},
       [[]], {"b64": "AAAA"}, {"b64": 5}, {"b64": "=="}, {"b64": "é"}, "9" * 1000]  # fmt: skip


def image_file(chance):
    """The content of a file that is almost an image."""
    pixels = np.frombuffer(chance.randbytes(30 * 20), np.uint8).reshape(30, 20)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, chance.choice(["PNG", "JPEG"]))
    content = bytearray(file.getvalue())
    for _ in range(chance.randrange(4)):
        content[chance.randrange(min(len(content), chance.choice([40, 10_000])))] = chance.randrange(256)
    return bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])


def value(chance, depth=0):
    """A JSON value, often nested."""
    kind = chance.randrange(8 if depth < 4 else 4)
    if kind < 4:
        return chance.choice(ODD)
    if kind < 6:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    names = ["images", "image_bytes", "b64", "signature_name", "", "é"]
    return {chance.choice(names): value(chance, depth + 1) for _ in range(chance.randrange(3))}


def body(chance, images):
    """The body of a request: odd in one place, or entirely."""
    kind = chance.randrange(6)
    if kind == 0:
        return chance.randbytes(chance.randrange(60))
    pixels = images[: chance.randrange(1, 3)].tolist()
    request = {"signature_name": "uint8", chance.choice(["instances", "inputs"]): pixels}
    if kind == 1:
        key = next(key for key in request if key != "signature_name")
        request[key] = value(chance)
    elif kind == 2:
        request["signature_name"] = chance.choice([*ODD, "encoded", "features", "serving_default"])
    elif kind == 3:
        pixels[0][chance.randrange(28)][chance.randrange(28)] = value(chance)
    elif kind == 4:
        files = [{"b64": base64.b64encode(image_file(chance)).decode()} for _ in range(chance.randrange(1, 3))]
        request = {"signature_name": "encoded", "instances": files}
    content = json.dumps(request).encode(errors="surrogatepass")
    if kind == 5:
        content = bytearray(content)
        for _ in range(chance.randrange(1, 5)):
            content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


class Sender:
    """Sends requests over one connection, and over a new one after the server has closed it."""

    def __init__(self, server):
        self._server = server
        self._connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __call__(self, method, path, content):
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._server.host, self._server.rest_port, timeout=60)
        self._connection.putrequest(method, path, skip_accept_encoding=True)
        self._connection.putheader("Content-Length", str(len(content)))
        self._connection.endheaders(content)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.will_close:
            self.close()
        return answer.status, text


def assert_alive(server, images, expected):
    with Sender(server) as sender:
        content = json.dumps({"instances": images.tolist()}).encode()
        status, text = sender("POST", "/v1/models/digits:predict", content)
    assert status == 200
    rows = json.loads(text)["predictions"]
    np.testing.assert_allclose([row["probabilities"] for row in rows], expected[2], rtol=0, atol=1e-6)


def test_bodies(server, images, expected, chance, repeats):
    statuses, count = [], BODIES * repeats

    def send(seed):
        own = random.Random(seed)
        with Sender(server) as sender:
            for _ in range(count // 4):
                content = body(own, images)
                status, text = sender("POST", "/v1/models/digits:predict", content)
                json.loads(text)
                statuses.append((status, content))

    threads = [threading.Thread(target=send, args=(chance.random(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == count
    assert {status for status, _ in statuses} == {200, 400}, [found for found in statuses if found[0] not in (200, 400)]
    assert sum(status == 400 for status, _ in statuses) > count / 2
    assert_alive(server, images, expected)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=12,
)


@settings(max_examples=1500, deadline=None)
@given(
    request=st.fixed_dictionaries(
        {},
        optional={
            "instances": JSON,
            "inputs": JSON,
            "signature_name": JSON | st.sampled_from(["uint8", "encoded", "features", "serving_default"]),
        },
    )
    | JSON
)
def test_any_json_is_answered(send, request):
    status, answer = send("POST", "/v1/models/digits:predict", request)
    assert status == 400
    assert set(answer) == {"error"}


def test_paths(server, images, expected, chance, repeats):
    parts = ["v1", "models", "digits", ":predict", "/", "versions", "labels", "1", "stable", "%00", "..", "%2e%2e", ":",
             "metadata", "9" * 50, "%F0%28", "?", "#", "monitoring"]  # fmt: skip
    with Sender(server) as sender:
        for _ in range(PATHS * repeats):
            path = "/" + "".join(chance.choice(parts) + chance.choice(["", "/"]) for _ in range(chance.randrange(8)))
            method = chance.choice(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
            status, _ = sender(method, path, b"")
            assert status in (200, 400, 404, 405, 501), (method, path, status)
    assert_alive(server, images, expected)


def test_messages(server, images, expected, chance, repeats):
    with grpc.insecure_channel(f"{server.host}:{server.grpc_port}", [("grpc.enable_http_proxy", 0)]) as channel:
        raw = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        codes = []
        for _ in range(MESSAGES * repeats):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = chance.choice(["digits", "digits", "", "nope"])
            request.model_spec.signature_name = chance.choice(
                ["uint8", "encoded", "features", "serving_default", "", "x"]
            )
            proto = request.inputs[chance.choice(["images", "image_bytes", "x"])]
            proto.dtype = chance.choice([0, 1, 3, 4, 7, 9, 10, 14, 20, 23, 101, 999])
            for size in chance.choice([(), (1,), (2, 28, 28, 1), (-1,), (2**62, 2**62), (0, 28, 28, 1)]):
                proto.tensor_shape.dim.add(size=size)
            proto.tensor_content = chance.choice([b"", chance.randbytes(28 * 28 * 2), chance.randbytes(9)])
            proto.string_val.extend([image_file(chance)] * chance.randrange(3))
            proto.int_val.extend([chance.randrange(-5, 300)] * chance.randrange(3))
            proto.float_val.extend([chance.random()] * chance.randrange(3))
            content = bytearray(request.SerializeToString())
            if chance.randrange(4) == 0:
                content[chance.randrange(len(content))] = chance.randrange(256)
            try:
                raw(bytes(content))
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)
        assert len(codes) == MESSAGES * repeats
        # INTERNAL is gRPC's own word for a message that cannot be parsed.
        assert set(codes) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "INTERNAL"}, set(codes)
        assert codes.count("INVALID_ARGUMENT") > len(codes) / 10
    assert_alive(server, images, expected)


def test_connections(server, images, expected, chance, repeats):
    """Data that is not HTTP, or only the beginning of it, ends the connection and nothing else."""
    beginnings = [
        b"", b"\x00" * 50, b"GET", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/models/digits:predict HTTP/1.1\r\n",
        b"POST /v1/models/digits:predict HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: " + b"a" * 100_000 + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ]  # fmt: skip
    for index in range(CONNECTIONS * repeats):
        with socket.create_connection((server.host, server.rest_port), timeout=60) as connection:
            content = beginnings[index % len(beginnings)]
            if index >= len(beginnings):
                content += chance.randbytes(chance.randrange(30))
            try:
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(100)
            except OSError:  # the server closed the connection, which is an answer too
                continue
            assert answer[9:10] in (b"", b"4"), (content[:60], answer)
    assert_alive(server, images, expected)


def test_ci_sends_ten_thousand():
    (repeats,) = re.findall(r"--repeats (\d+)", (Path(__file__).parents[2] / ".ci" / "run").read_text())
    assert int(repeats) * (BODIES + PATHS + MESSAGES + CONNECTIONS) >= 10_000
