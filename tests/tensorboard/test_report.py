"""What TensorBoard reads about the test images."""

import io

import numpy as np
import pytest
from PIL import Image

from lenet_keras.errors import InvalidArgument
from lenet_keras.tensorboard.report import write_test_report

NAMES = ["top", "trouser", "bag"]
LABELS = np.array([0, 1, 2, 2])


def write(run_dir, *, labels=LABELS, right=3, history=()):
    """Report on four images, of which the first `right` are classified correctly."""
    predicted = np.where(np.arange(len(LABELS)) < right, LABELS, (LABELS + 1) % 3)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_test_report(
        run_dir,
        images=np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28, 1),
        labels=labels,
        probabilities=np.where(np.eye(3)[predicted], 0.8, 0.1).astype(np.float32),
        history=history,
        class_names=NAMES,
        step=49,
    )


def test_recorded_epochs_are_drawn_as_curves(tmp_path, series):
    rows = [{"test_loss": 0.75, "test_accuracy": 0.5}, {"test_loss": 0.5, "test_accuracy": 0.75}]
    write(tmp_path, history=rows)
    assert series(tmp_path / "test", "epoch/accuracy") == [(0, 0.5), (1, 0.75)]
    assert series(tmp_path / "test", "epoch/loss") == [(0, 0.75), (1, 0.5)]


@pytest.mark.parametrize("tag", ["test/confusion matrix", "test/most confident mistakes"])
def test_images_can_be_read(tmp_path, read, series, tag):
    write(tmp_path)
    ((step, (width, height, png)),) = series(tmp_path / "test", tag)
    assert step == 49
    image = Image.open(io.BytesIO(png))
    assert image.size == (int(width), int(height))
    assert len(np.unique(image)) > 10  # something is drawn
    plugin = read(tmp_path / "test").SummaryMetadata(tag).plugin_data.plugin_name
    assert plugin == "images"


def test_writing_again_replaces_the_report(tmp_path, series):
    write(tmp_path, right=3)
    first = {path.name for path in (tmp_path / "test").iterdir()}
    for _ in range(2):
        write(tmp_path, right=4)
    assert len(series(tmp_path / "test", "test/confusion matrix")) == 1
    (left,) = (tmp_path / "test").iterdir()
    assert left.name not in first


def test_invalid_arrays_are_rejected_and_leave_nothing(tmp_path):
    with pytest.raises(InvalidArgument, match=r"Received: 4 images, 3 labels"):
        write(tmp_path, labels=LABELS[:3])
    with pytest.raises(InvalidArgument, match="Received: 0 to 3"):
        write(tmp_path, labels=LABELS + np.array([0, 0, 0, 1]))
    assert not list(tmp_path.iterdir())
