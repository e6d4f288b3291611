from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lenet_keras.data.catalogue import DATASETS, DEFAULT_DATASET, SAMPLE_DATASET, dataset_spec
from lenet_keras.errors import InvalidArgument

from .conftest import in_new_process

ASK_TFDS = """
import json, sys
import tensorflow_datasets as tfds

answer = {}
for name in sys.argv[1:]:
    builder = tfds.builder(name)
    config = builder.builder_config
    answer[name] = {
        "names": builder.info.features["label"].names,
        "sums": {url: info.checksum for url, info in builder.url_infos.items()},
        "sizes": [config.train_examples, config.test_examples] if config else None,
    }
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def tfds_says() -> dict[str, dict[str, object]]:
    names = [name for name, spec in DATASETS.items() if not spec.is_sample]
    result = subprocess.run([sys.executable, "-c", ASK_TFDS, *names], capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist", "kmnist"])
def test_class_names_are_tfds_s(tfds_says: dict, name: str) -> None:
    assert list(dataset_spec(name).class_names) == tfds_says[name]["names"]


@pytest.mark.parametrize("name", [name for name in DATASETS if name.startswith("emnist/")])
def test_emnist_has_tfds_s_sizes_and_number_of_classes(tfds_says: dict, name: str) -> None:
    spec = dataset_spec(name)
    assert [spec.train_size, spec.test_size] == tfds_says[name]["sizes"]
    # TFDS declares 37 classes for the letters, of which 26 are used.
    assert spec.num_classes == (26 if name == "emnist/letters" else len(tfds_says[name]["names"]))


@pytest.mark.parametrize("name", [name for name, spec in DATASETS.items() if spec.download_url])
def test_the_url_to_probe_is_one_that_tfds_downloads_from(tfds_says: dict, name: str) -> None:
    assert dataset_spec(name).download_url in tfds_says[name]["sums"]


def test_checksums_of_compressed_files_are_those_that_tfds_registers(tfds_says: dict) -> None:
    registered = {url.rpartition("/")[2]: value for url, value in tfds_says["kmnist"]["sums"].items()}
    assert {f"{name}.gz": value for name, value in dataset_spec("kmnist").idx_sha256.items()} == registered


def test_class_names_are_distinct_and_emnist_s_are_characters() -> None:
    for spec in DATASETS.values():
        assert len(set(spec.class_names)) == spec.num_classes
    balanced = dataset_spec("emnist/balanced").class_names
    assert (balanced[9], balanced[10], balanced[35], balanced[36], balanced[46]) == ("9", "A", "Z", "a", "t")


def test_only_the_sample_is_marked_as_one() -> None:
    assert [name for name, spec in DATASETS.items() if spec.is_sample] == [SAMPLE_DATASET]
    assert "sample" in dataset_spec(SAMPLE_DATASET).title
    assert dataset_spec(SAMPLE_DATASET).default_validation == 100
    assert dataset_spec(DEFAULT_DATASET).default_validation == 5_000


def test_an_unknown_name_is_reported_with_those_allowed_and_a_similar_one() -> None:
    with pytest.raises(InvalidArgument, match=r"'fashon_mnist'.*Did you mean 'fashion_mnist'\?.*emnist/byclass"):
        dataset_spec("fashon_mnist")


def test_the_catalogue_loads_neither_numpy_nor_tensorflow() -> None:
    code = "import sys, lenet_keras.data.catalogue; print([m for m in ('numpy', 'tensorflow') if m in sys.modules])"
    assert in_new_process(code) == "[]"
