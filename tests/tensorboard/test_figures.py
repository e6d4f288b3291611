"""What the images of the test report show."""

import subprocess
import sys

import numpy as np

from lenet_keras.tensorboard.figures import draw_confusion_matrix, draw_mistakes


def fills(image):
    """Return the colors of squares of 10 pixels in one color: areas, not letters and lines."""
    height, width = (side // 10 * 10 for side in image.shape[:2])
    squares = image[:height, :width].reshape(height // 10, 10, width // 10, 10, 3).swapaxes(1, 2)
    squares = squares.reshape(-1, 100, 3)
    plain = (squares == squares[:, :1]).all(axis=(1, 2))
    return {tuple(color) for color in squares[plain, 0].tolist()}


def test_shade_is_the_share_of_the_row():
    # Row sums differ by a hundred times, shares do not: two shades and the white of the margin.
    image = draw_confusion_matrix(np.array([[9, 1], [900, 100]]), ["a", "b"])
    assert image.dtype == np.uint8
    assert len(fills(image)) == 3


def test_a_class_without_test_images_is_drawn():
    # Full share, none, and white.
    assert len(fills(draw_confusion_matrix(np.array([[5, 0], [0, 0]]), ["a", "b"]))) == 3


def test_the_image_grows_with_the_classes():
    small, large = (draw_confusion_matrix(np.eye(n, dtype=int), [str(i) for i in range(n)]) for n in (10, 47))
    assert large.shape[0] - small.shape[0] >= 37 * 40  # pixels


def test_mistakes_are_drawn_most_confident_first_in_reading_order():
    # Each image is one shade of gray by which it is found in the drawing.
    shades = np.arange(40, 160, 10, dtype=np.uint8)  # twelve images: two rows
    images = np.broadcast_to(shades[:, None, None, None], (12, 28, 28, 1))
    wrong = np.random.default_rng(0).permutation(np.linspace(0.6, 0.99, 12)).astype(np.float32)
    probabilities = np.stack([1 - wrong, wrong], axis=1)
    image = draw_mistakes(images, np.zeros(12, np.int64), probabilities, ["a", "b"])

    gray = image[:, :, 0].astype(int)
    places = np.array([np.median(np.argwhere(abs(gray - shade) <= 2), axis=0) for shade in shades])
    reading_order = np.lexsort((places[:, 1], places[:, 0] > image.shape[0] / 2))
    assert reading_order.tolist() == np.argsort(-wrong).tolist()


def test_correct_answers_are_not_drawn():
    images = np.stack([np.full((28, 28, 1), 90, np.uint8), np.full((28, 28, 1), 150, np.uint8)])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]], np.float32)
    image = draw_mistakes(images, np.array([0, 1]), probabilities, ["a", "b"])
    assert fills(image) == {(255, 255, 255), (150, 150, 150)}
    assert fills(draw_mistakes(images, np.array([0, 0]), probabilities, ["a", "b"])) == {(255, 255, 255)}


def test_drawing_touches_nothing_global_and_loads_no_tensorflow():
    script = """
import sys
import numpy as np
from lenet_keras.tensorboard.figures import draw_confusion_matrix
draw_confusion_matrix(np.eye(2, dtype=int), ["a", "b"])
assert "matplotlib.pyplot" not in sys.modules and "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
