"""The datasets by name: their classes, their sizes, and the checksums of their contents.

Importing this module loads no NumPy and no TensorFlow, so that a command line can offer the names.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, cast

from lenet_keras.errors import InvalidArgument, did_you_mean, excerpt

DatasetName = Literal[
    "fashion_mnist",
    "mnist",
    "kmnist",
    "emnist/balanced",
    "emnist/byclass",
    "emnist/bymerge",
    "emnist/letters",
    "emnist/digits",
    "emnist/mnist",
    "fashion_mnist_sample",
]
DEFAULT_DATASET: DatasetName = "fashion_mnist"
SAMPLE_DATASET: DatasetName = "fashion_mnist_sample"
IMAGE_SHAPE = (28, 28, 1)  # height, width, channels: of every dataset here


@dataclass(frozen=True)
class DatasetSpec:
    """What is known about a dataset before it is read.

    Attributes:
        name: TFDS's (`emnist/letters` is a builder and its configuration).
        title: for people.
        class_names: in the order of the labels 0, 1, 2...
        train_size, test_size: images.
        citation: the publication.
        default_validation: how many training images are held out by default.
        is_sample: a small part of a dataset, for trials; its metrics say nothing about the full one.
        download_url: one of the files that TFDS downloads, to see whether the site answers; empty if TFDS has none.
        debian_package: the Debian and Ubuntu package that holds the dataset as IDX files; empty if there is none.
        idx_sha256: SHA-256 of each decompressed IDX file, by its name without `.gz`; empty if IDX files are not read.
        idx_sha256_of_gz: `idx_sha256` is of the compressed files, as no checksums of their contents are published.
        content_sha256: digests of the training and the test examples in canonical order (`arrays.canonical_order`),
            which do not depend on the source; None where the dataset could not be obtained to compute them.
        first_label: the lowest label in the stored files; labels in memory start at 0.
        transposed: whether the stored images have rows and columns swapped; images in memory are upright.
    """

    name: DatasetName
    title: str
    class_names: tuple[str, ...]
    train_size: int
    test_size: int
    citation: str
    default_validation: int = 5_000
    is_sample: bool = False
    download_url: str = ""
    debian_package: str = ""
    idx_sha256: Mapping[str, str] = field(default_factory=dict)
    idx_sha256_of_gz: bool = False
    content_sha256: tuple[str, str] | None = None
    first_label: int = 0
    transposed: bool = False

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FASHION_CITATION = "H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST (2017), arXiv:1708.07747"
_EMNIST_CITATION = "G. Cohen, S. Afshar, J. Tapson, A. van Schaik: EMNIST (2017), arXiv:1702.05373"

_DIGITS = tuple(string.digits)
_CAPITALS = tuple(string.ascii_uppercase)
# Of the lower-case letters, the 47 classes keep those that do not look like their capitals.
_MERGED = _DIGITS + _CAPITALS + tuple("abdefghnqrt")


def _emnist(
    subset: str, title: str, class_names: tuple[str, ...], sizes: tuple[int, int], first_label: int = 0
) -> DatasetSpec:
    return DatasetSpec(
        name=cast(DatasetName, f"emnist/{subset}"),
        title=f"EMNIST {title}",
        class_names=class_names,
        train_size=sizes[0],
        test_size=sizes[1],
        citation=_EMNIST_CITATION,
        download_url="https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
        first_label=first_label,
        transposed=True,
    )


_ALL = (
    DatasetSpec(
        name="fashion_mnist",
        title="Fashion-MNIST",
        class_names=_FASHION_CLASSES,
        train_size=60_000,
        test_size=10_000,
        citation=_FASHION_CITATION,
        download_url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz",
        debian_package="dataset-fashion-mnist",
        idx_sha256={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        content_sha256=(
            "9f7da7ceb688fec5ac60646c65c6921c0c7911f41856541d1951ba8bcd08187d",
            "cead68de77266d4360ca898b5e1cafd68df0d2723f9e735fc69bc545978de19d",
        ),
    ),
    DatasetSpec(
        name="mnist",
        title="MNIST",
        class_names=_DIGITS,
        train_size=60_000,
        test_size=10_000,
        citation="Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits",
        download_url="https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz",
        # Several public programs that download MNIST pin the same four.
        idx_sha256={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    DatasetSpec(
        name="kmnist",
        title="Kuzushiji-MNIST",
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        train_size=60_000,
        test_size=10_000,
        citation="T. Clanuwat et al.: Deep Learning for Classical Japanese Literature (2018), arXiv:1812.01718",
        download_url="http://codh.rois.ac.jp/kmnist/dataset/kmnist/t10k-labels-idx1-ubyte.gz",
        # The checksums that TFDS registers for its download.
        idx_sha256_of_gz=True,
        idx_sha256={
            "train-images-idx3-ubyte": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "train-labels-idx1-ubyte": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "t10k-images-idx3-ubyte": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "t10k-labels-idx1-ubyte": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        },
    ),
    _emnist("balanced", "Balanced", _MERGED, (112_800, 18_800)),
    _emnist("byclass", "ByClass", _DIGITS + _CAPITALS + tuple(string.ascii_lowercase), (697_932, 116_323)),
    _emnist("bymerge", "ByMerge", _MERGED, (697_932, 116_323)),
    # TFDS declares 37 classes for the letters and uses the labels 1 to 26.
    _emnist("letters", "Letters", _CAPITALS, (88_800, 14_800), first_label=1),
    _emnist("digits", "Digits", _DIGITS, (240_000, 40_000)),
    _emnist("mnist", "MNIST", _DIGITS, (60_000, 10_000)),
    DatasetSpec(
        name=SAMPLE_DATASET,
        title="Fashion-MNIST sample (500 + 500 images, for trials only)",
        class_names=_FASHION_CLASSES,
        train_size=500,
        test_size=500,
        citation=_FASHION_CITATION,
        default_validation=100,
        is_sample=True,
        idx_sha256={
            "train-images-idx3-ubyte": "2f2516abc65b46b8b7da7c45e128394382544e926616fb846d95edb65e32fd89",
            "train-labels-idx1-ubyte": "a0d38cbab010497ed6aea90712654a3cdca719f4ba215bbb2bb5da04065e59ea",
            "t10k-images-idx3-ubyte": "8fdf02ada67d92f4db5ba3c2f6c5b1cc6186ba6e0efd4914661e4389e103b81e",
            "t10k-labels-idx1-ubyte": "9c71808b3a0ebfc091442c0009a7aa35be2d9622bf6aaf6891ce9a0088e96c07",
        },
        content_sha256=(
            "f29f5efe8b0e533d98cbece4bc0f85e78ae072e228aafbc7f20cea834e3a268b",
            "a96e54576b11378bd42979dda13209e2fd2b0b426a9673db9c19d17c8c754130",
        ),
    ),
)

DATASETS: Mapping[DatasetName, DatasetSpec] = MappingProxyType({spec.name: spec for spec in _ALL})


def dataset_spec(name: str) -> DatasetSpec:
    """Return what is known about the dataset `name`.

    >>> dataset_spec("emnist/letters").train_size
    88800

    Raises:
        InvalidArgument: no such dataset; the message lists those that exist, and a similar name.
    """
    if name in DATASETS:
        return DATASETS[cast(DatasetName, name)]
    guess = did_you_mean(name, DATASETS)
    raise InvalidArgument(f"Unknown dataset {excerpt(name)}.{guess} Allowed: {', '.join(DATASETS)}.")
