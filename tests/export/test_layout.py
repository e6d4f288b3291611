"""The export folder: names of models, versions, and the file of class names."""

import pytest

from lenet_keras.inference.saved_model import read_labels, write_labels
from lenet_keras.serving.config import model_folders, model_name, version_folders


@pytest.mark.parametrize(
    ("reg", "dataset", "name"),
    [
        (("none",), "fashion_mnist", "lenet5_none"),
        ((), "fashion_mnist", "lenet5_none"),
        (("dropout", "weight_decay"), "fashion_mnist", "lenet5_dropout_weight_decay"),
        (("none",), "mnist", "lenet5_none_mnist"),
        (("batch_norm",), "emnist/letters", "lenet5_batch_norm_emnist_letters"),
        (("none",), "fashion_mnist_sample", "lenet5_none_fashion_mnist_sample"),
    ],
)
def test_the_name_holds_variant_and_dataset(reg, dataset, name):
    assert model_name(reg, dataset) == name


def test_versions_are_the_numbers_among_the_children(tmp_path):
    for name in ["2", "10", "0003", "-4", "1.5", "v7", ".export.8", "tmp", "9" * 30, "٣"]:
        (tmp_path / name).mkdir()
    (tmp_path / "11").touch()
    assert [folder.name for folder in version_folders(tmp_path)] == ["2", "0003", "10", "11"]


def test_models_are_the_folders_with_a_version(tmp_path):
    for name in ["b/1", "a/2", "empty", "notes/drafts", ".export/3"]:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "README.md").touch()
    assert [folder.name for folder in model_folders(tmp_path)] == ["a", "b"]


def test_labels_are_read_as_they_were_written(tmp_path):
    names = ("T-shirt/top", " padded ", "Ångström", "with \x85 and \u2028 inside")
    write_labels(tmp_path, names)
    assert read_labels(tmp_path) == names
