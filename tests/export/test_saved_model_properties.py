"""A SavedModel whose files were truncated, changed or lost: it is refused in one line, or predicts as before.

Bytes of the graph are not changed here: what they say is TensorFlow's to check, in C++, where it may end the process.
"""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenet_keras.errors import ModelDamaged, ModelNotFound
from lenet_keras.inference.saved_model import open_saved_model

GRAPH = "saved_model.pb"
INDEX = "variables/variables.index"
DATA = "variables/variables.data-00000-of-00001"
LABELS = "assets/labels.txt"


@pytest.fixture(scope="module")
def copied(published, tmp_path_factory):
    """Return a function that copies the intact version to the same path each time."""
    folder = tmp_path_factory.mktemp("damaged") / "1"
    return lambda: shutil.copytree(published, folder, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def probabilities(published, images):
    return open_saved_model(published).probabilities(images)


def refused(folder, images, probabilities):
    """Return whether the model is refused; if it is not, it predicts what it did before the damage."""
    message = None
    try:
        found = open_saved_model(folder).probabilities(images)
    except (ModelDamaged, ModelNotFound) as error:
        message = str(error)
    if message is not None:
        assert message.startswith(f"{folder} is ")
        assert len(message.splitlines()) == 1
        return True
    np.testing.assert_array_equal(found, probabilities)
    return False


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from([GRAPH, INDEX, DATA, LABELS]), share=st.floats(0, 1, exclude_max=True))
def test_a_file_truncated_anywhere_is_noticed(copied, images, probabilities, name, share):
    folder = copied()
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    assert refused(folder, images, probabilities)


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from([INDEX, DATA, "fingerprint.pb"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_changed_bytes_are_noticed_or_do_not_matter(copied, images, probabilities, name, changes):
    folder = copied()
    content = bytearray((folder / name).read_bytes())
    for place, value in changes:
        content[int(place * len(content))] = value
    (folder / name).write_bytes(content)
    refused(folder, images, probabilities)


@pytest.mark.parametrize("lost", [GRAPH, INDEX, DATA, LABELS])
def test_a_lost_file_or_a_folder_in_its_place_is_noticed(published, tmp_path, images, probabilities, lost):
    folder = shutil.copytree(published, tmp_path / "1")
    (folder / lost).unlink()
    assert refused(folder, images, probabilities)
    (folder / lost).mkdir()
    assert refused(folder, images, probabilities)
