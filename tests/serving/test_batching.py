"""Concurrent requests are computed together, and none suffers from another."""

import threading
import weakref
from concurrent.futures import CancelledError
from concurrent.futures import wait as wait_for_all

import numpy as np
import pytest
import tensorflow as tf

from lenet_keras.serving.embedded.batching import Batcher
from lenet_keras.serving.embedded.signatures import ServingError, Signature


class Doubler:
    """A function to be served; it waits until it may run, and records the number of rows of each call."""

    def __init__(self, shape=(None, 2)):
        self.calls = []
        self.large_has_started = threading.Event()
        self.large_may_run = threading.Event()
        self.large_may_run.set()
        self.may_run = threading.Event()
        self.has_started = threading.Event()
        spec = tf.TensorSpec(shape, tf.float32)
        self.signature = Signature("double", {"x": spec}, {"y": spec}, self)

    def __call__(self, x):
        self.has_started.set()
        self.may_run.wait()
        if x.shape[0] > 8:
            self.large_has_started.set()
            self.large_may_run.wait()
        self.calls.append(int(x.shape[0]))
        if bool(tf.reduce_any(x < 0)):
            raise ValueError("a negative number")
        return {"y": 2 * x}


def row(*values):
    return {"x": np.array([values], np.float32)}


@pytest.fixture
def doubler():
    return Doubler()


@pytest.fixture
def batcher():
    batcher = Batcher(max_batch=8, max_waiting=20)
    yield batcher
    batcher.close()


def submit_together(batcher, doubler, requests):
    """Submit while the batcher is busy with another request."""
    first = batcher.submit(doubler.signature, row(0, 0))
    doubler.has_started.wait()
    answers = [batcher.submit(doubler.signature, request) for request in requests]
    doubler.may_run.set()
    wait_for_all([first, *answers])
    return answers


def test_waiting_requests_are_merged_and_each_gets_its_own_rows(batcher, doubler):
    requests = [row(i, i + 1) for i in range(5)] + [{"x": np.full((3, 2), 7, np.float32)}]
    answers = submit_together(batcher, doubler, requests)
    assert doubler.calls == [1, 8]
    for request, answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(answer.result()["y"], 2 * request["x"])


def test_batches_are_limited_but_a_larger_request_is_run(batcher, doubler):
    submit_together(batcher, doubler, [row(1, 1)] * 10 + [{"x": np.zeros((30, 2), np.float32)}])
    assert sorted(doubler.calls) == [1, 2, 8, 30]


def test_a_small_request_does_not_wait_for_large_ones(batcher, doubler):
    doubler.may_run.set()
    doubler.large_may_run.clear()
    large = [batcher.submit(doubler.signature, {"x": np.zeros((30, 2), np.float32)}) for _ in range(3)]
    doubler.large_has_started.wait()
    try:
        batcher.submit(doubler.signature, row(1, 1)).result(timeout=60)
        assert doubler.calls == [1]
    finally:
        doubler.large_may_run.set()
    wait_for_all(large)
    assert doubler.calls == [1, 30, 30, 30]


def test_requests_that_decode_many_pixels_are_not_merged(batcher, doubler):
    first = batcher.submit(doubler.signature, row(0, 0))
    doubler.has_started.wait()
    answers = [batcher.submit(doubler.signature, row(1, 1), pixels) for pixels in (2**24, 2**24, 2**18, 2**18, 0)]
    doubler.may_run.set()
    wait_for_all([first, *answers])
    assert sorted(doubler.calls) == [1, 1, 1, 1, 2]  # 2**18 pixels weigh as much as four rows


def test_a_failing_request_does_not_fail_the_others(batcher, doubler):
    answers = submit_together(batcher, doubler, [row(1, 1), row(-1, 1), row(2, 2)])
    assert doubler.calls == [1, 3, 1, 1, 1]
    with pytest.raises(ServingError, match="a negative number"):
        answers[1].result()
    np.testing.assert_array_equal(answers[2].result()["y"], [[4, 4]])


def test_requests_of_different_shapes_are_not_merged(batcher):
    doubler = Doubler((None, None))
    answers = submit_together(batcher, doubler, [row(1, 1), row(1, 2, 3), row(2, 2), row(4, 5, 6)])
    assert sorted(doubler.calls) == [1, 2, 2]
    assert [answer.result()["y"].shape for answer in answers] == [(1, 2), (1, 3), (1, 2), (1, 3)]


def test_an_empty_batch_runs_alone(batcher, doubler):
    submit_together(batcher, doubler, [row(1, 1), {"x": np.zeros((0, 2), np.float32)}, row(1, 1)])
    assert sorted(doubler.calls) == [0, 1, 2]


def test_too_many_waiting_requests_are_refused(batcher, doubler):
    with pytest.raises(ServingError, match="20 requests are waiting; try again later") as refused:
        submit_together(batcher, doubler, [row(1, 1)] * 21)
    assert refused.value.http_status == 429
    doubler.may_run.set()


def test_a_cancelled_request_is_not_run(batcher, doubler):
    first = batcher.submit(doubler.signature, row(0, 0))
    doubler.has_started.wait()
    cancelled = batcher.submit(doubler.signature, row(1, 1))
    assert cancelled.cancel()
    last = batcher.submit(doubler.signature, row(2, 2))
    doubler.may_run.set()
    wait_for_all([first, last])
    assert doubler.calls == [1, 1]
    with pytest.raises(CancelledError):
        cancelled.result()


def test_a_cancelled_request_gives_up_its_place_and_its_inputs(batcher, doubler):
    first = batcher.submit(doubler.signature, row(0, 0))
    doubler.has_started.wait()
    inputs = [row(1, 1) for _ in range(20)]
    kept = [weakref.ref(each["x"]) for each in inputs]
    cancelled = [batcher.submit(doubler.signature, each) for each in inputs]
    inputs.clear()
    try:
        assert all(each.cancel() for each in cancelled)
        last = batcher.submit(doubler.signature, row(2, 2))  # were they still waiting, it would be one too many
        assert not any(each() is not None for each in kept)
    finally:
        doubler.may_run.set()
    wait_for_all([first, last])


def test_inputs_that_do_not_fit_the_signature_are_refused(doubler):
    with pytest.raises(ServingError, match=r"must be float32\. Received: float64"):
        doubler.signature.check({"x": np.zeros((1, 2))})
    with pytest.raises(ServingError, match=r"must have the shape \[\?, 2\]. Received: \[1, 3\]"):
        doubler.signature.check(row(1, 2, 3))


def test_a_closing_batcher_answers_what_it_has_and_refuses_more(doubler):
    batcher = Batcher()
    answer = batcher.submit(doubler.signature, row(1, 2))
    doubler.may_run.set()
    batcher.close()
    np.testing.assert_array_equal(answer.result()["y"], [[2, 4]])
    with pytest.raises(ServingError, match="shutting down"):
        batcher.submit(doubler.signature, row(1, 2))
