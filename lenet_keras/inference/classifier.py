"""One object that answers for a run, a SavedModel and a served model alike, and the two questions to ask it.

The modules that need TensorFlow are imported when a source needs them: a model served over REST needs none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from lenet_keras.data.catalogue import IMAGE_SHAPE, DatasetSpec, dataset_spec
from lenet_keras.data.load import load
from lenet_keras.errors import DatasetRequired, InvalidArgument, ModelNotFound
from lenet_keras.inference.images import GreyImage, as_image, encode_png, read_image
from lenet_keras.inference.measure import Predictor, loss_and_accuracy, softmax
from lenet_keras.inference.run_model import load_run_model
from lenet_keras.inference.saved_model import open_saved_model
from lenet_keras.paths import AnyPath, local_path
from lenet_keras.runs import RunFolder
from lenet_keras.serving.client import ServingClient
from lenet_keras.serving.config import is_version, model_folders, version_folders

ImageSource = AnyPath | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """The most probable class of an image.

    Attributes:
        class_id: its number.
        class_name: its name.
        probability: its probability, a fraction.
        probabilities: of all classes, in the order of their numbers, summing to 1.
        version: the number of the exported model's version; None for a run.
        looks_inverted: the image has a bright border, where the datasets have a black background.
        is_blank: all pixels of the image have one value, so its class says nothing.
    """

    class_id: int
    class_name: str
    probability: float
    probabilities: list[float]
    version: int | None
    looks_inverted: bool
    is_blank: bool

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values; they are the same for a run, a SavedModel and a served model."""
        return asdict(self)


@dataclass(frozen=True)
class Answers:
    """What a model answers for N images.

    Attributes:
        probabilities: floating point [N, classes].
        class_ids: N numbers, each that of the most probable class of an image.
        class_names: the names of those classes.
        version: the number of the exported model's version; None for a run.
    """

    probabilities: npt.NDArray[np.floating[Any]]
    class_ids: list[int]
    class_names: list[str]
    version: int | None = None


@dataclass(frozen=True)
class Classifier:
    """A trained model, ready to answer; close it, or use it in a `with` statement, to end a connection to a server.

    Attributes:
        source: the path of the run folder or of the SavedModel's version folder, or the URL of the served model.
        answer: maps images uint8 [N, *image_shape], N >= 1, to `Answers`.
        class_names: in the order of the probabilities; None for a server, which does not list them.
        image_shape: height, width and channels of an image.
        dataset: the dataset that the model was trained on; None: it does not say, such as a server, or a SavedModel of
            another program.
        close: ends the connection to a server.
    """

    source: str
    answer: Callable[[npt.NDArray[np.uint8]], Answers]
    class_names: tuple[str, ...] | None
    image_shape: tuple[int, int, int] = IMAGE_SHAPE
    dataset: str | None = None
    close: Callable[[], None] = lambda: None

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def predict(self, images: Sequence[ImageSource], *, invert: bool = False) -> list[Prediction]:
        """Predict the class of each image, as the function `predict` does."""
        read = [self._read(image, invert) for image in images]
        if not read:
            return []
        answers = self.answer(np.stack([image.pixels for image in read]))
        return [
            Prediction(
                class_id,
                name,
                float(row[class_id]),
                row.tolist(),
                answers.version,
                image.looks_inverted,
                image.is_blank,
            )
            for image, class_id, name, row in zip(
                read, answers.class_ids, answers.class_names, answers.probabilities, strict=True
            )
        ]

    def evaluate(self, dataset: str | None = None, *, data_dir: AnyPath | None = None) -> dict[str, Any]:
        """Measure the model on a dataset's test images, as the function `evaluate` does."""
        name = dataset or self.dataset
        if name is None:
            raise DatasetRequired(f"{self.source} does not say which dataset it was trained on.")
        spec = dataset_spec(name)
        if self.class_names not in (None, spec.class_names):
            raise InvalidArgument(
                f"the model's classes ({_listed(self.class_names)}) are not those of {spec.name} "
                f"({_listed(spec.class_names)}). Name the dataset that it was trained on."
            )
        test = load(name, data_dir).test
        answers = self.answer(test.images)
        if self.class_names is None:
            _check_answered_classes(answers, spec)
        # Logarithms of probabilities serve as logits; the smallest float32 stands in for a probability rounded to
        # 0.
        logits = np.log(np.maximum(answers.probabilities, np.finfo(np.float32).tiny))
        return {
            "model": self.source,
            "dataset": spec.name,
            "images": len(test),
            "test": loss_and_accuracy(logits, test.labels),
        }

    def _read(self, image: ImageSource, invert: bool) -> GreyImage:
        size = self.image_shape[:2]
        if isinstance(image, np.ndarray):
            return as_image(image, size, invert=invert)
        return read_image(local_path(image), size, invert=invert)


def predict(
    source: AnyPath, images: Sequence[ImageSource], *, invert: bool = False, wait: float = 30.0
) -> list[Prediction]:
    """Predict the class of each image.

    >>> (prediction,) = predict("runs/fashion_mnist_sample/none/7", ["boot.png"])
    >>> prediction.probability == prediction.probabilities[prediction.class_id]
    True

    Args:
        source: a run, a SavedModel or a served model, as `open_classifier` takes it.
        images: paths of PNG or JPEG files of any size, or arrays of pixels, uint8 [height, width, 1] in the size that
            the model takes, 0 (the background) to 255.
        invert: swap bright and dark in what the images show, as `lenet_keras.inference.images.read_image` does: the
            datasets show bright objects on black.
        wait: seconds to wait for a served model that is coming up.

    Raises:
        InvalidArgument: a file is not an image, or an array is not pixels of the right size.
        LenetKerasError: the model cannot be opened, as in `open_classifier`, or an image file cannot be read.
        ServerUnavailable: the server does not answer, or not for this model.
    """
    with open_classifier(source, wait=wait) as classifier:
        return classifier.predict(images, invert=invert)


def evaluate(source: AnyPath, dataset: str | None = None, *, data_dir: AnyPath | None = None) -> dict[str, Any]:
    """Measure a model on a dataset's test images.

    >>> evaluate("runs/fashion_mnist_sample/none/7")["images"]
    500

    Args:
        source: a run, a SavedModel or a served model, as `open_classifier` takes it.
        dataset: its name. None takes the one that the model was trained on, if it says so: a run and a SavedModel that
            was exported from one do, a server does not.
        data_dir: the folder of the dataset, as `lenet_keras.data.load.load` takes it.

    Returns:
        {"model": source, "dataset": name, "images": N, "test": {"loss": nats, "accuracy": fraction}}.

    Raises:
        DatasetRequired: the model does not say which dataset it was trained on, and none is named.
        InvalidArgument: an unknown dataset, or one whose classes are not the model's.
        LenetKerasError: the model cannot be opened, as in `open_classifier`.
        ServerUnavailable: the server does not answer, or not for this model.
        DatasetNotFound, DatasetDamaged: the dataset cannot be loaded.
    """
    with open_classifier(source) as classifier:
        return classifier.evaluate(dataset, data_dir=data_dir)


def open_classifier(source: AnyPath, *, wait: float = 30.0) -> Classifier:
    """Open the model of a run, an exported model or a served one.

    >>> with open_classifier("runs/fashion_mnist_sample/none/7") as classifier:
    ...     classifier.class_names[:2]
    ('T-shirt/top', 'Trouser')

    Args:
        source: a run folder; a SavedModel's version folder, or a model's folder for its newest version; or a URL, as
            `open_server` takes it.
        wait: seconds to wait for a served model that is coming up.

    Raises:
        InvalidArgument: the URL is not that of a served model.
        ModelNotFound: the path holds neither a run nor a SavedModel.
        RunUnfinished: the run has no model yet.
        RunDamaged, ModelDamaged: the model or a file that goes with it is damaged, or another program wrote it.
    """
    if isinstance(source, str) and re.match(r"\w+://", source):
        return open_server(source, wait=wait)
    folder = RunFolder(local_path(source))
    return _open_run(folder) if folder.is_run else _open_export(folder.path)


def open_server(url: str, *, wait: float = 30.0) -> Classifier:
    """Open a served model; nothing is sent until it is used.

    >>> open_server("http://localhost/v1/models/lenet5_none").source
    'http://localhost:8501/v1/models/lenet5_none'

    Args:
        url: `http[s]://HOST:PORT/v1/models/NAME` or `grpc://HOST:PORT/NAME`, as `ServingClient` takes it.
        wait: seconds to wait for a model that is coming up.

    Raises:
        InvalidArgument: the URL is not that of a served model.
    """
    client = ServingClient(url)

    def answer(images: npt.NDArray[np.uint8]) -> Answers:
        client.wait_until_available(wait)
        found = client.classify([encode_png(image) for image in images])
        return Answers(
            np.array([one.probabilities for one in found]),
            [one.class_id for one in found],
            [one.class_name for one in found],
            found[0].version,
        )

    return Classifier(str(client.endpoint), answer, None, close=client.close)


def newest_export(export_dir: AnyPath) -> Path:
    """Return the version folder that was exported last, over all models in `export_dir`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Path(folder, "lenet5_none", "1").mkdir(parents=True)
    ...     newest_export(Path(folder)).relative_to(folder).as_posix()
    'lenet5_none/1'

    Raises:
        ModelNotFound: `export_dir` holds none.
    """
    export_dir = local_path(export_dir)
    folders = model_folders(export_dir) if export_dir.is_dir() else []
    versions = [version for folder in folders for version in version_folders(folder)]
    if not versions:
        raise ModelNotFound(f"{export_dir} holds no exported model. Train one, or name a run or SavedModel.")
    return max(versions, key=lambda version: version.stat().st_mtime_ns)


def _open_run(folder: RunFolder) -> Classifier:
    dataset = folder.read_config().dataset
    class_names = dataset_spec(dataset).class_names
    model = load_run_model(folder)
    logits = Predictor(model)
    return Classifier(
        str(folder.path),
        lambda images: _named(softmax(logits(images)), class_names),
        class_names,
        model.input_shape[1:],
        dataset,
    )


def _open_export(path: Path) -> Classifier:
    exported = open_saved_model(path)
    number = exported.path.absolute().name
    version = int(number) if is_version(number) else None
    return Classifier(
        str(exported.path),
        lambda images: _named(exported.probabilities(images), exported.class_names, version),
        exported.class_names,
        exported.image_shape,
        exported.dataset,
    )


def _named(
    probabilities: npt.NDArray[np.floating[Any]], class_names: tuple[str, ...], version: int | None = None
) -> Answers:
    class_ids = probabilities.argmax(axis=-1).tolist()
    return Answers(probabilities, class_ids, [class_names[i] for i in class_ids], version)


def _check_answered_classes(answers: Answers, spec: DatasetSpec) -> None:
    count = answers.probabilities.shape[-1]
    if count != spec.num_classes:
        raise InvalidArgument(f"the model has {count} classes, but {spec.name} has {spec.num_classes}.")
    for class_id, name in zip(answers.class_ids, answers.class_names, strict=True):
        if name != spec.class_names[class_id]:
            raise InvalidArgument(
                f"the model calls class {class_id} {name!r}, but in {spec.name} it is {spec.class_names[class_id]!r}. "
                "Name the dataset that it was trained on."
            )


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:3])}, … {len(names)} in all"
