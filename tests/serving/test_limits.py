"""A server with tight limits: nobody takes it from the others, and nothing stays behind."""

import asyncio
import contextlib
import gc
import gzip
import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from lenet_keras.inference.images import encode_png
from lenet_keras.serving.embedded import rest_server
from lenet_keras.serving.embedded.batching import Batcher
from lenet_keras.serving.embedded.budget import Budget
from lenet_keras.serving.embedded.grpc_server import GrpcServer
from lenet_keras.serving.embedded.limits import Limits
from lenet_keras.serving.embedded.rest_server import RestServer
from lenet_keras.serving.embedded.service import Service
from lenet_keras.serving.embedded.signatures import Signature

from .test_rest import b64

HOST = "127.0.0.1"
PREDICT = "/v1/models/digits:predict"
LIMITS = Limits(
    request_bytes=2**20,
    images=20,
    pixels=200_000,
    buffered_bytes=2**21,
    waiting=3,
    connections=6,
    idle=1.0,
    timeout=0.5,
)


@dataclass
class Strict:
    service: Service
    rest: int
    grpc: int

    def post(self, request, headers=None):
        content = request if isinstance(request, bytes) else json.dumps(request).encode()
        connection = http.client.HTTPConnection(HOST, self.rest, timeout=60)
        connection.request("POST", PREDICT, content, headers or {})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text)

    def connect(self, content=b""):
        connection = socket.create_connection((HOST, self.rest), timeout=60)
        connection.sendall(content)
        return connection


@pytest.fixture(scope="module")
def strict(server):
    """The models of the session's server, behind interfaces of their own."""
    batcher = Batcher(max_waiting=LIMITS.waiting)
    service = Service(server.store, batcher, LIMITS, Budget(LIMITS.buffered_bytes))
    servers = RestServer(service, HOST, 0, cors=False), GrpcServer(service, HOST, 0)
    for each in servers:
        each.start()
    yield Strict(service, *(each.port for each in servers))
    for each in servers:
        each.stop(30)
    for each in servers:
        each.join()
    batcher.close()


@pytest.fixture
def stub(strict):
    with grpc.insecure_channel(f"{HOST}:{strict.grpc}", [("grpc.enable_http_proxy", 0)]) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def busy(strict):
    """The model is computing until the test ends."""
    may_end, has_started = threading.Event(), threading.Event()
    spec = tf.TensorSpec((None,), tf.float32)

    def wait(x):
        has_started.set()
        may_end.wait()
        return {"y": x}

    answer = strict.service.batcher.submit(
        Signature("wait", {"x": spec}, {"y": spec}, wait), {"x": np.zeros(1, np.float32)}
    )
    has_started.wait()
    yield
    may_end.set()
    answer.result()


def pixels(images, count=1):
    return {"signature_name": "uint8", "instances": images[[i % 12 for i in range(count)]].tolist()}


def head(length):
    return f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def message(array, signature="uint8", argument="images"):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "digits", signature
    request.inputs[argument].CopyFrom(tf.make_tensor_proto(array))
    return request


def test_a_request_has_a_limited_number_of_images(strict, stub, images):
    assert strict.post(pixels(images, 20))[0] == 200
    status, answer = strict.post(pixels(images, 21))
    assert (status, "send fewer at a time" in answer["error"]) == (400, True)
    with pytest.raises(grpc.RpcError) as refused:
        stub.Predict(message(np.zeros((21, 28, 28, 1), np.uint8)))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "has 21 rows; a request may have 20" in refused.value.details()


def test_a_few_bytes_that_repeat_one_value_are_refused_before_they_become_an_array(stub):
    request = message(np.zeros((0, 28, 28, 1), np.uint8))
    request.inputs["images"].tensor_shape.dim[0].size = 85_000
    request.inputs["images"].int_val.append(1)
    assert request.ByteSize() < 100
    with pytest.raises(grpc.RpcError) as refused:
        stub.Predict(request)
    assert "has 85000 rows" in refused.value.details()


def test_a_request_decodes_a_limited_number_of_pixels(strict, stub):
    files = [encode_png(np.zeros((400, 400, 1), np.uint8))] * 2
    request = {"signature_name": "encoded", "instances": [b64(file) for file in files]}
    status, answer = strict.post(request)
    assert (status, answer["error"].split(";")[0]) == (400, "the images have 320000 pixels together")
    with pytest.raises(grpc.RpcError) as refused:
        stub.Predict(message(np.array(files), "encoded", "image_bytes"))
    assert "the images have 320000 pixels together" in refused.value.details()
    request["instances"].pop()
    assert strict.post(request)[0] == 200


def test_bodies_under_way_hold_a_limited_amount_of_memory(strict, images):
    uploads = [strict.connect(head(900_000) + b"x" * 800_000) for _ in range(2)]
    wait_for(lambda: strict.service.budget.held == 1_600_000)
    status, answer = strict.post(b"x" * 700_000)
    assert (status, "try again later" in answer["error"]) == (429, True)
    for upload in uploads:
        upload.close()
    wait_for(lambda: strict.service.budget.held == 0)
    assert strict.post(pixels(images))[0] == 200


def test_unpacked_bodies_are_limited_too(strict):
    bomb = gzip.compress(b" " * 2**25)
    assert len(bomb) < 2**16
    status, answer = strict.post(bomb, {"Content-Encoding": "gzip"})
    assert (status, "longer than" in answer["error"]) == (413, True)
    assert strict.service.budget.held == 0


def test_requests_beyond_the_queue_get_429_and_those_in_it_a_time_limit(strict, stub, busy, images):
    statuses = []

    def send():
        statuses.append(strict.post(pixels(images))[0])

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: strict.service.batcher._waiting == 3)
    assert strict.post(pixels(images))[0] == 429
    with pytest.raises(grpc.RpcError) as refused:
        stub.Predict(message(images[:1]))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for thread in threads:
        thread.join()
    assert statuses == [504] * 3


def test_idle_connections_and_slow_clients_are_cut_off(strict):
    silent = [b"", b"POST /v1/models/dig", head(100) + b"{", head(2**21) + b"x"]  # the last one has its answer already
    connections = [strict.connect(content) for content in silent]
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect((HOST, strict.rest))
    deaf.settimeout(60)
    with contextlib.suppress(ConnectionError):  # the server closes the connection, as nobody reads its replies
        while True:
            deaf.sendall(b"GET /v1/models/digits/metadata HTTP/1.1\r\nHost: a\r\n\r\n")
    deaf.close()
    for connection in connections:
        with contextlib.suppress(ConnectionError):
            while connection.recv(2**16):
                pass
        connection.close()
    wait_for(lambda: not _handlers())


def test_calls_whose_message_does_not_come_end_and_keep_nobody_waiting(strict, stub, images):
    stop = threading.Event()

    def never():
        stop.wait()
        yield from ()

    with grpc.insecure_channel(f"{HOST}:{strict.grpc}", [("grpc.enable_http_proxy", 0)]) as channel:
        raw = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        calls = [raw.future(never()) for _ in range(60)]
        assert stub.Predict(message(images[:1])).model_spec.version.value == 2
        assert {call.exception(timeout=60).code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        stop.set()


def test_beyond_the_limit_the_slowest_connections_give_way(strict, images, caplog):
    idle = [strict.connect() for _ in range(3 * LIMITS.connections)]
    assert strict.post(pixels(images))[0] == 200
    for connection in idle:
        connection.close()
    lines = [line for line in caplog.messages if "connections are open" in line]
    assert 1 <= len(lines) <= 2, caplog.messages  # one of each kind a minute


def test_a_refusal_to_accept_is_one_line_and_passes(strict, images, caplog, monkeypatch):
    accept, refused = socket.socket.accept, []

    def out_of_descriptors(listener):
        if len(refused) < 2 and listener.getsockname()[1] == strict.rest:
            refused.append(True)
            raise OSError(24, "Too many open files")
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", out_of_descriptors)
    assert strict.post(pixels(images))[0] == 200
    assert len(refused) == 2
    assert [line for line in caplog.messages if "Too many open files" in line] == [
        "no connection can be accepted: Too many open files (said at most once a minute)"
    ]


def _handlers():
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, rest_server._Handler)]


def test_nothing_stays_behind_of_requests_that_are_broken_off(strict, images, busy):
    """Uploads that end half-way by either protocol, and clients that do not wait for their answer."""
    tasks = sum(isinstance(each, asyncio.Task) for each in gc.get_objects())
    body = json.dumps(pixels(images)).encode()
    for _ in range(8):
        strict.connect(head(1_000_000) + b"x" * 500_000).close()
        strict.connect(head(len(body)) + body).close()
        strict.connect(b"POST /nope HTTP/1.1\r\nContent-Length: 1000\r\n\r\nx").close()
        strict.connect(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab").close()
        with grpc.insecure_channel(f"{HOST}:{strict.grpc}", [("grpc.enable_http_proxy", 0)]) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            with pytest.raises(grpc.RpcError):
                stub.Predict(message(images[:1]), timeout=0.01)
    wait_for(lambda: not _handlers())
    wait_for(lambda: strict.service.budget.held == 0)
    wait_for(lambda: sum(isinstance(each, asyncio.Task) for each in gc.get_objects()) <= tasks)
