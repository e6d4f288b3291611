"""Requests that come together are computed together, and none suffers for another."""

import threading
from concurrent.futures import CancelledError
from concurrent.futures import wait as wait_for_all

import numpy as np
import pytest
import tensorflow as tf

from lenet_keras.serving.embedded.batching import Batcher
from lenet_keras.serving.embedded.signatures import Signature
from lenet_keras.serving.embedded.status import ServingError


class Doubler:
    """A function to be served; it can be held up, and notes how many rows each call had."""

    def __init__(self, shape=(None, 2)):
        self.calls = []
        self.may_go_on = threading.Event()
        self.has_begun = threading.Event()
        spec = tf.TensorSpec(shape, tf.float32)
        self.signature = Signature("double", {"x": spec}, {"y": spec}, self)

    def __call__(self, x):
        self.has_begun.set()
        self.may_go_on.wait()
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
    made = Batcher(max_batch=8, max_waiting=20)
    yield made
    made.close()


def submit_together(batcher, doubler, requests):
    """Submit while the only worker is busy with another request."""
    first = batcher.submit(doubler.signature, row(0, 0))
    doubler.has_begun.wait()
    answers = [batcher.submit(doubler.signature, request) for request in requests]
    doubler.may_go_on.set()
    wait_for_all([first, *answers])
    return answers


def test_requests_that_wait_are_merged_and_each_gets_its_own_rows(batcher, doubler):
    requests = [row(i, i + 1) for i in range(5)] + [{"x": np.full((3, 2), 7, np.float32)}]
    answers = submit_together(batcher, doubler, requests)
    assert doubler.calls == [1, 8]
    for request, answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(answer.result()["y"], 2 * request["x"])


def test_a_batch_is_no_larger_than_allowed_but_a_large_request_is_run(batcher, doubler):
    submit_together(batcher, doubler, [row(1, 1)] * 10 + [{"x": np.zeros((30, 2), np.float32)}])
    assert doubler.calls == [1, 8, 2, 30]


def test_one_that_fails_takes_no_other_with_it(batcher, doubler):
    answers = submit_together(batcher, doubler, [row(1, 1), row(-1, 1), row(2, 2)])
    assert doubler.calls == [1, 3, 1, 1, 1]
    with pytest.raises(ServingError, match="a negative number"):
        answers[1].result()
    np.testing.assert_array_equal(answers[2].result()["y"], [[4, 4]])


def test_other_shapes_are_kept_apart(batcher):
    doubler = Doubler((None, None))
    answers = submit_together(batcher, doubler, [row(1, 1), row(1, 2, 3), row(2, 2), row(4, 5, 6)])
    assert sorted(doubler.calls) == [1, 2, 2]
    assert [answer.result()["y"].shape for answer in answers] == [(1, 2), (1, 3), (1, 2), (1, 3)]


def test_an_empty_batch_is_run_alone(batcher, doubler):
    submit_together(batcher, doubler, [row(1, 1), {"x": np.zeros((0, 2), np.float32)}, row(1, 1)])
    assert sorted(doubler.calls) == [0, 1, 2]


def test_too_many_that_wait_are_refused(batcher, doubler):
    with pytest.raises(ServingError, match="20 requests wait already; try again later"):
        submit_together(batcher, doubler, [row(1, 1)] * 21)
    doubler.may_go_on.set()


def test_one_that_was_given_up_is_not_run(batcher, doubler):
    first = batcher.submit(doubler.signature, row(0, 0))
    doubler.has_begun.wait()
    given_up = batcher.submit(doubler.signature, row(1, 1))
    assert given_up.cancel()
    last = batcher.submit(doubler.signature, row(2, 2))
    doubler.may_go_on.set()
    wait_for_all([first, last])
    assert doubler.calls == [1, 1]
    with pytest.raises(CancelledError):
        given_up.result()


def test_what_does_not_fit_the_signature_is_refused_before_it_waits(batcher, doubler):
    with pytest.raises(ServingError, match=r"must be float32\. Received: float64"):
        batcher.submit(doubler.signature, {"x": np.zeros((1, 2))})
    with pytest.raises(ServingError, match=r"must have the shape \[\?, 2\]. Received: \[1, 3\]"):
        batcher.submit(doubler.signature, row(1, 2, 3))


def test_a_batcher_that_closes_answers_what_it_has_and_takes_no_more(doubler):
    batcher = Batcher()
    answer = batcher.submit(doubler.signature, row(1, 2))
    doubler.may_go_on.set()
    batcher.close()
    np.testing.assert_array_equal(answer.result()["y"], [[2, 4]])
    with pytest.raises(ServingError, match="shutting down"):
        batcher.submit(doubler.signature, row(1, 2))
