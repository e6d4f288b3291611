"""The embedded server's REST interface, over real sockets."""

import base64
import gc
import gzip
import http.client
import json
import socket
import time
import tracemalloc

import numpy as np
import pytest

from lenet_keras.inference.images import encode_png
from lenet_keras.serving.embedded import rest_server

PREDICT = "/v1/models/digits:predict"


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


def assert_answers(rows, expected):
    np.testing.assert_allclose([row["probabilities"] for row in rows], expected, rtol=0, atol=1e-6)
    assert [row["class_id"] for row in rows] == expected.argmax(axis=1).tolist()
    assert {row["class_name"] for row in rows} <= {*(f"class {i}" for i in range(9)), "Ångström"}


@pytest.mark.parametrize("count", [1, 12])
def test_rows_to_every_signature_return_the_models_answers(send, images, expected, count):
    numbers = images[:count].tolist()
    files = [b64(encode_png(image)) for image in images[:count]]
    for request in (
        {"instances": numbers},
        {"instances": [{"images": row} for row in numbers]},
        {"signature_name": "serving_default", "instances": images[:count].astype(float).tolist()},
        {"signature_name": "uint8", "instances": numbers},
        {"signature_name": "encoded", "instances": files},
        {"signature_name": "encoded", "instances": [{"image_bytes": file} for file in files]},
    ):
        status, answer = send("POST", PREDICT, request)
        assert status == 200, answer
        assert set(answer) == {"predictions"}
        assert_answers(answer["predictions"], expected[2][:count])


def test_columns_return_the_same_as_columns(send, images, expected):
    for inputs in ({"images": images[:3].tolist()}, images[:3].tolist()):
        status, answer = send("POST", PREDICT, {"signature_name": "uint8", "inputs": inputs})
        assert status == 200
        columns = answer["outputs"]
        assert set(columns) == {"probabilities", "class_id", "class_name"}
        np.testing.assert_allclose(columns["probabilities"], expected[2][:3], rtol=0, atol=1e-6)


def test_a_single_output_has_no_name(send, images):
    status, answer = send("POST", PREDICT, {"signature_name": "features", "instances": images[:2].tolist()})
    assert status == 200
    assert np.shape(answer["predictions"]) == (2, 84)
    _, answer = send("POST", PREDICT, {"signature_name": "features", "inputs": images[:2].tolist()})
    assert np.shape(answer["outputs"]) == (2, 84)


@pytest.mark.parametrize(
    ("which", "version"),
    [("", 2), ("/versions/1", 1), ("/versions/2", 2), ("/labels/stable", 1), ("/labels/canary", 2)],
)
def test_a_version_or_label_is_selected_by_the_path(send, images, expected, which, version):
    path = f"/v1/models/digits{which}"
    status, answer = send("POST", f"{path}:predict", {"signature_name": "uint8", "instances": images[:2].tolist()})
    assert status == 200
    assert_answers(answer["predictions"], expected[version][:2])
    status, answer = send("GET", f"{path}/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "digits", "signature_name": "", "version": str(version)}


def test_status_lists_the_versions_as_tensorflow_serving_does(send):
    ok = {"error_code": "OK", "error_message": ""}
    status, answer = send("GET", "/v1/models/digits")
    assert status == 200
    assert answer == {"model_version_status": [{"version": v, "state": "AVAILABLE", "status": ok} for v in ("2", "1")]}
    for which, versions in (("/versions/1", ["1"]), ("/labels/stable", ["2", "1"]), ("/labels/none", ["2", "1"])):
        _, answer = send("GET", f"/v1/models/digits{which}")
        assert [found["version"] for found in answer["model_version_status"]] == versions


def test_metadata_describes_the_signatures(send):
    _, answer = send("GET", "/v1/models/digits/metadata")
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "uint8", "encoded", "features"} <= set(signatures)
    tensor = signatures["uint8"]["inputs"]["images"]
    assert tensor["dtype"] == "DT_UINT8"
    assert [dim["size"] for dim in tensor["tensor_shape"]["dim"]] == ["-1", "28", "28", "1"]


WRONG_VALUES = [("a", "String"), (1.5, "Number"), (300, "Number"), (-1, "Number"), (True, "Boolean"), (None, "Null")]


@pytest.mark.parametrize(("value", "kind"), WRONG_VALUES)
def test_the_error_names_a_value_of_a_wrong_type(send, images, value, kind):
    pixels = images[:1].tolist()
    pixels[0][3][4] = [value]
    status, answer = send("POST", PREDICT, {"signature_name": "uint8", "instances": pixels})
    assert status == 400
    assert f"Type: {kind} is not of expected type: uint8" in answer["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error"),
        (b"{", "JSON Parse error"),
        (b"\xff\xfe", "JSON Parse error"),
        (b"[" * 100_000, "JSON Parse error"),
        (b"[]", "Is not object"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"inputs": [1], "instances": [1]}, "expecting only one of 'inputs' or 'instances'"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": 5}, "Expecting 'instances' to be an list/array"),
        ({"signature_name": 5, "instances": [1]}, "'signature_name' key must be a string"),
        ({"signature_name": "nope", "instances": [1]}, 'Serving signature name: "nope" not found'),
        ({"instances": [[1]]}, "must have the shape [?, 28, 28, 1]. Received: [1, 1]"),
        ({"instances": [[1], [2, 3]]}, "lists of unequal sizes"),
        ({"instances": [{"pixels": 1}]}, "keys must be equal to: images"),
        ({"inputs": {"pixels": 1}}, "Missing named input: images"),
        ({"signature_name": "encoded", "instances": [{"b64": "?"}]}, "Unable to base64 decode"),
        ({"signature_name": "encoded", "instances": [b64(b"not an image")]}, "PNG"),
        ({"signature_name": "encoded", "instances": ["text"]}, "PNG"),
        ({"signature_name": "uint8", "inputs": []}, "must have the shape"),
    ],
)
def test_a_bad_request_gets_400_and_the_reason(send, body, message):
    status, answer = send("POST", PREDICT, body)
    assert status == 400
    assert set(answer) == {"error"}
    assert message in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v1/models/nope:predict", 404, "Servable not found for request: Latest(nope)"),
        ("POST", "/v1/models/digits/versions/9:predict", 404, "Servable not found for request: Specific(digits, 9)"),
        ("POST", "/v1/models/digits/labels/beta:predict", 400, "Unrecognized servable version label: beta"),
        ("POST", f"/v1/models/digits/versions/{'9' * 30}:predict", 400, "Failed to convert version"),
        ("POST", "/v1/models/digits:classify", 501, "predict"),
        ("GET", "/v1/models/nope", 404, "Could not find any versions of model nope"),
        ("GET", "/v1/models/digits/versions/9", 404, "Could not find version 9 of model digits"),
        ("GET", "/v1/models", 400, "Missing model name in request"),
        ("GET", "/v1/models/digits:predict", 400, "Malformed request: GET"),
        ("PUT", "/v1/models/digits", 400, "Malformed request: PUT"),
        ("DELETE", "/v1/models/digits", 400, "Malformed request: DELETE"),
        ("GET", "/", 404, "Not found: GET /"),
        ("GET", "/v1/../etc/passwd", 400, "Malformed request"),
    ],
)
def test_a_bad_path_gets_its_status_and_the_reason(send, method, path, status, message):
    found, answer = send(method, path, {"instances": [[0]]} if method == "POST" else None)
    assert (found, message in answer["error"]) == (status, True), answer


@pytest.mark.parametrize("deep", ["[" * 1000 + "]" * 1000, '{"a":' * 1000 + "1" + "}" * 1000])
@pytest.mark.parametrize("body", ['{"instances": %s}', '{"instances": [NaN, %s]}', '{"signature_name": %s}', "%s"])
def test_json_nested_deeply_is_a_bad_request(send, deep, body):
    status, answer = send("POST", PREDICT, (body % deep).encode())
    assert (status, set(answer)) == (400, {"error"})
    assert len(answer["error"]) < 600


def test_a_query_is_part_of_the_path_as_in_tensorflow_serving(send, images):
    assert send("POST", f"{PREDICT}?a=b", {"instances": images[:1].tolist()})[0] == 400
    status, answer = send("GET", "/v1/models/digits?a=b")
    assert (status, answer["error"]) == (404, "Could not find any versions of model digits?a=b")


def test_a_packed_body_is_unpacked(server, images, expected):
    connection = http.client.HTTPConnection(server.host, server.rest_port, timeout=60)
    body = gzip.compress(json.dumps({"signature_name": "uint8", "instances": images.tolist()}).encode())
    for content, status in (
        (body, 200),
        (body[:-20], 400),
        (b"no", 400),
        (body + b"x" * 2**17, 400),
        (body + body, 400),
        (body, 200),
    ):
        connection.request("POST", PREDICT, content, {"Content-Encoding": "gzip"})
        answer = connection.getresponse()
        document = json.loads(answer.read())
        assert answer.status == status, document
    assert_answers(document["predictions"], expected[2])
    connection.close()


def test_base64_may_have_line_breaks(send, images, expected):
    file = base64.encodebytes(encode_png(images[0])).decode()
    assert file.count("\n") > 2
    status, answer = send("POST", PREDICT, {"signature_name": "encoded", "instances": [{"b64": file}]})
    assert status == 200
    assert_answers(answer["predictions"], expected[2][:1])


def exchange(port, method, path, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    answer.text = answer.read().decode()
    connection.close()
    return answer


def test_a_pre_flight_request_is_answered_and_pages_may_read_replies_if_they_are_let(server):
    closed = exchange(server.rest_port, "OPTIONS", PREDICT, {"Origin": "https://example.org"})
    assert (closed.status, closed.text, closed.getheader("Access-Control-Allow-Origin")) == (200, "", None)
    assert exchange(server.rest_port, "OPTIONS", PREDICT, {}).status == 400
    rest = rest_server.RestServer(server.service, "127.0.0.1", 0, cors=True)
    rest.start()
    for method, path in (("OPTIONS", PREDICT), ("GET", "/v1/models/digits"), ("GET", "/v1/models/nope")):
        answer = exchange(rest.port, method, path, {"Origin": "https://example.org"})
        assert answer.getheader("Access-Control-Allow-Origin") == "*"
        assert answer.getheader("Access-Control-Allow-Methods") == "POST, GET"
        assert answer.getheader("Access-Control-Allow-Headers") == "Content-Type"
    rest.stop(1)
    rest.join()


def test_metrics_have_the_names_that_tensorflow_serving_gives_them(server, send, images):
    def counts():
        answer = exchange(server.rest_port, "GET", "/monitoring/prometheus/metrics", {})
        assert answer.getheader("Content-Type") == "text/plain"
        lines = (line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#"))
        return {name: int(value) for name, _, value in lines}

    send("POST", PREDICT, {"instances": images[:1].tolist()})
    before = counts()
    send("POST", PREDICT, {"instances": images[:1].tolist()})
    send("POST", PREDICT, {"instances": [1]})
    send("POST", "/v1/models/nope:predict", {"instances": [1]})
    send("POST", "/v1/models/digits/versions/99:predict", {"instances": [1]})
    after = counts()
    request = ':tensorflow:serving:request_%s{model_name="digits"%s}'
    latency = ',API="predict",entrypoint="REST"'
    changes = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
    assert changes.pop(request % ("count", ',status="OK"')) == 1
    assert changes.pop(request % ("count", ',status="NOT_FOUND"')) == 1
    assert changes.pop(request % ("count", ',status="INVALID_ARGUMENT"')) == 1
    assert changes.pop(request % ("latency_count", latency)) == 1
    assert changes.pop(request % ("latency_sum", latency)) > 0
    assert changes.pop(request % ("latency_bucket", latency + ',le="+Inf"')) == 1
    assert all("latency_bucket" in name for name in changes)
    assert not any("nope" in name for name in after)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"\x00" * 50 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", None),
        (b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 99, 400),
    ],
)
def test_what_is_not_http_gets_one_reply_in_json(server, content, status):
    with socket.create_connection((server.host, server.rest_port), timeout=60) as connection:
        connection.sendall(content)
        answer = b""
        while chunk := connection.recv(2**16):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert status is None or head.startswith(b"HTTP/1.1 %d " % status)
    assert set(json.loads(body)) == {"error"}


def test_nan_is_accepted_and_answered_as_by_tensorflow_serving(send, images):
    pixels = images[:1].astype(float).tolist()
    pixels[0][3][4] = [float("nan")]
    status, answer = send("POST", PREDICT, {"instances": pixels})
    assert status == 200
    assert len(answer["predictions"][0]["probabilities"]) == 10


def test_a_request_that_is_too_large_is_refused_and_the_next_one_answered(server, send, images):
    connection = http.client.HTTPConnection(server.host, server.rest_port, timeout=60)
    connection.putrequest("POST", PREDICT)
    connection.putheader("Content-Length", str(10**10))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    connection.close()
    assert send("POST", PREDICT, {"signature_name": "uint8", "instances": images[:1].tolist()})[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/nope", 404), ("POST", "/v1/models/nope:predict", 404), ("POST", "/v1/models/digits:classify", 501),
        ("POST", "/v1/models/digits/versions/9:predict", 404), ("PUT", "/v1/models/digits", 400),
    ],
)  # fmt: skip
@pytest.mark.parametrize("header", [("Content-Length", str(32 * 2**20)), ("Transfer-Encoding", "chunked")])
def test_a_refused_request_is_answered_before_its_body_which_is_not_kept(server, method, path, status, header):
    connection = http.client.HTTPConnection(server.host, server.rest_port, timeout=60)
    connection.putrequest(method, path)
    connection.putheader(*header)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, set(json.loads(answer.read()))) == (status, {"error"})
    is_chunked, megabyte = header[1] == "chunked", b"x" * 2**20
    tracemalloc.start()
    for _ in range(32):
        connection.send(b"100000\r\n%b\r\n" % megabyte if is_chunked else megabyte)
    if is_chunked:
        connection.send(b"0\r\n\r\n")
    connection.request("GET", "/v1/models/digits")  # the connection goes on
    assert connection.getresponse().status == 200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    connection.close()
    assert peak < 8 * 2**20


def test_the_body_of_a_get_is_not_kept(server):
    connection = http.client.HTTPConnection(server.host, server.rest_port, timeout=60)
    tracemalloc.start()
    connection.request("GET", "/v1/models/digits", iter([b"x" * 2**20] * 32), {"Content-Length": str(32 * 2**20)})
    assert connection.getresponse().status == 200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    connection.close()
    assert peak < 8 * 2**20


def test_a_client_that_waits_for_word_to_go_on_is_refused_instead(server):
    connection = http.client.HTTPConnection(server.host, server.rest_port, timeout=60)
    connection.putrequest("POST", "/nope")
    connection.putheader("Content-Length", "1000")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    with connection.sock, connection.sock.makefile("rb") as stream:
        assert stream.readline() == b"HTTP/1.1 404 Not Found\r\n"
        assert b"100 (Continue)" not in stream.read()


@pytest.mark.parametrize("length", ["9" * 5000, "9" * 30])
def test_a_length_of_thousands_of_digits_is_refused(server, length):
    connection = http.client.HTTPConnection(server.host, server.rest_port, timeout=60)
    connection.putrequest("POST", PREDICT)
    connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_what_was_received_of_an_abandoned_body_is_freed(server):
    def wait_for(is_kept):
        deadline = time.monotonic() + 30
        while any(each._body for each in gc.get_objects() if isinstance(each, rest_server._Handler)) != is_kept:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    with socket.create_connection((server.host, server.rest_port)) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n".encode())
        connection.sendall(b"x" * 4_000_000)
        wait_for(True)
    wait_for(False)
