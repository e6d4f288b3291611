"""A SavedModel whose files were cut off, changed or lost: it is refused in one line, or predicts as before.

Bytes of the graph are not changed here: what they say is TensorFlow's to check, in C++, where it may end the process.
"""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenet_keras.errors import LenetKerasError
from lenet_keras.export import load_exported

GRAPH = "saved_model.pb"
INDEX = "variables/variables.index"
DATA = "variables/variables.data-00000-of-00001"
LABELS = "assets/labels.txt"


@pytest.fixture(scope="module")
def copied(published, tmp_path_factory):
    return shutil.copytree(published, tmp_path_factory.mktemp("damaged") / "1")


@pytest.fixture(scope="module")
def probabilities(published, images):
    return load_exported(published).predict(images)


def refused(folder, images, probabilities):
    """Whether the model is refused; if it is not, it predicts what it did before the damage."""
    try:
        found = load_exported(folder).predict(images)
    except LenetKerasError as error:
        assert str(error).startswith(f"{folder} is ")
        assert len(str(error).splitlines()) == 1
        return True
    np.testing.assert_array_equal(found, probabilities)
    return False


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from([GRAPH, INDEX, DATA, LABELS]), share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_noticed(published, copied, images, probabilities, name, share):
    content = (published / name).read_bytes()
    (copied / name).write_bytes(content[: int(share * len(content))])
    is_refused = refused(copied, images, probabilities)
    (copied / name).write_bytes(content)
    # The last bytes of the variables are of counters that no prediction needs.
    assert is_refused or name == DATA


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from([INDEX, DATA, "fingerprint.pb"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_changed_bytes_are_noticed_or_do_not_matter(published, copied, images, probabilities, name, changes):
    content = (published / name).read_bytes()
    changed = bytearray(content)
    for place, value in changes:
        changed[int(place * len(content))] = value
    (copied / name).write_bytes(changed)
    refused(copied, images, probabilities)
    (copied / name).write_bytes(content)


@pytest.mark.parametrize("lost", [GRAPH, INDEX, DATA, LABELS])
@pytest.mark.parametrize("in_its_place", ["nothing", "a folder"])
def test_a_lost_file_is_noticed(published, tmp_path, images, probabilities, lost, in_its_place):
    folder = shutil.copytree(published, tmp_path / "1")
    (folder / lost).unlink()
    if in_its_place == "a folder":
        (folder / lost).mkdir()
    assert refused(folder, images, probabilities)
