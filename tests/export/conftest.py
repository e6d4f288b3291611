"""A model, images and labels for it, and its first published version."""

from pathlib import Path

import keras
import numpy as np
import pytest

from lenet_keras.data.arrays import Split
from lenet_keras.export.publish import export_model
from lenet_keras.models import build_lenet5


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).integers(0, 256, (12, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope="session")
def examples(images, expected):
    """Return the images with labels of which the model classifies three in four correctly."""
    labels = expected.argmax(axis=1)
    labels[:3] = (labels[:3] + 1) % 10
    return Split(images, labels)


@pytest.fixture(scope="session")
def class_names():
    return ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ångström boot"]


@pytest.fixture(scope="session")
def model(images):
    """Return a confident model, with statistics of batch normalisation and masks that inference must not use."""
    model = build_lenet5(["dropout", "batch_norm"], seed=0)
    model(keras.ops.cast(images, "float32"), training=True)
    head = model.get_layer("logits")
    kernel, bias = head.get_weights()
    head.set_weights([kernel * 20, bias])
    return model


@pytest.fixture(scope="session")
def expected(model, images):
    """Return the model's own probabilities [N, classes]."""
    return keras.ops.softmax(model.predict(images.astype(np.float32), verbose=0)).numpy()


@pytest.fixture(scope="session")
def published(tmp_path_factory, model, class_names, examples) -> Path:
    """Return the folder of a first version; tests that change it must copy it."""
    return export_model(model, tmp_path_factory.mktemp("exported_models") / "lenet5_none", class_names, examples)
