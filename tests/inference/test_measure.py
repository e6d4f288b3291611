"""Loss, accuracy and softmax, compared with Keras's own."""

import keras
import numpy as np
import pytest

from lenet_keras.inference.measure import loss_and_accuracy, softmax


@pytest.fixture
def case():
    rng = np.random.default_rng(1)
    return rng.normal(0, 4, (257, 10)).astype("float32"), rng.integers(0, 10, 257)


def test_loss_and_accuracy_are_those_of_keras(case):
    logits, labels = case
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    accuracy = keras.metrics.SparseCategoricalAccuracy()
    accuracy.update_state(labels, logits)
    found = loss_and_accuracy(logits, labels)
    assert found["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert found["accuracy"] == pytest.approx(float(accuracy.result()), rel=1e-6)


def test_softmax_is_that_of_keras(case):
    np.testing.assert_allclose(softmax(case[0]), keras.ops.softmax(case[0]), atol=1e-6)


def test_large_logits_do_not_overflow():
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    assert loss_and_accuracy(logits, np.array([0, 0])) == {"loss": 500.0, "accuracy": 0.5}
    assert softmax(logits).tolist() == [[1, 0], [0, 1]]
