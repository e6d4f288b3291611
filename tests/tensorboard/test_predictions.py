"""What the test report counts and selects."""

import numpy as np

from lenet_keras.tensorboard.figures import confusion_matrix, most_confident_mistakes


def test_rows_are_true_classes_and_columns_predicted_ones():
    labels = np.array([0, 0, 0, 1, 2, 2])
    predicted = np.array([0, 2, 2, 1, 0, 2])
    counts = confusion_matrix(labels, predicted, 4)
    np.testing.assert_array_equal(counts, [[1, 0, 2, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])


def test_the_most_confident_mistake_comes_first_and_correct_answers_never():
    probabilities = np.array(
        [[0.6, 0.4], [0.9, 0.1], [1.0, 0.0], [0.3, 0.7], [0.9, 0.1]],
        np.float32,
    )
    labels = np.array([1, 1, 0, 0, 1])  # the third is correct, and the most confident of all
    assert most_confident_mistakes(labels, probabilities, 10).tolist() == [1, 4, 3, 0]
    assert most_confident_mistakes(labels, probabilities, 3).tolist() == [1, 4, 3]


def test_no_mistake_is_an_empty_list():
    assert most_confident_mistakes(np.array([0]), np.array([[1.0, 0.0]], np.float32), 5).tolist() == []
