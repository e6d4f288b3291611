"""The signatures of an exported SavedModel: their description, their functions in the graph, and warm-up requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from lenet_keras.backend import keras
from lenet_keras.inference.images import BRIGHT, SIMILAR, VISIBLE, encode_png
from lenet_keras.inference.saved_model import write_labels
from lenet_keras.models import FEATURES
from lenet_keras.serving.config import WARMUP
from lenet_keras.serving.endpoint import ENCODED, IMAGE_BYTES

# The signature that TensorFlow Serving calls unless a request names one, and its name for Keras.
SERVING_DEFAULT, KERAS_DEFAULT = "serving_default", "serve"

# Decoding an image of this size takes 400 MB. Larger ones are refused before decoding: a few kilobytes can hold
# one.
MAX_PIXELS = 4096 * 4096

_LUMA = (19595, 38470, 7471)  # ITU-R 601 in units of 2**-16, as Pillow's
# Segment APP14 of a JPEG file: its length, a name, a version, two words of flags, and no transform of colours.
_ADOBE_MARKER = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_WARMUP_IMAGES = 4  # per request; enough for a batch dimension to show

GraphFunction = Callable[[tf.Tensor], dict[str, tf.Tensor]]


@dataclass(frozen=True)
class Tensor:
    """An argument or output for N images: `dtype` ("float32", "uint8", "int64" or "string") [N, *shape]."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"`{self.name}` {self.dtype} [{', '.join(['N', *map(str, self.shape)])}]"


@dataclass(frozen=True)
class Signature:
    """A function that the SavedModel offers under `name`: its only argument, and what it returns."""

    name: str
    argument: Tensor
    outputs: tuple[Tensor, ...]

    def example_input(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Return the argument's value for `images`, uint8 0..255 [N, height, width, 1]; strings as NumPy's bytes."""
        if self.argument.dtype == "string":
            return np.array([encode_png(image) for image in images])
        return images.astype(self.argument.dtype)


def class_outputs(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the outputs of a signature that classifies: probabilities that sum to 1, and the most probable class.

    >>> [str(output) for output in class_outputs(10)]
    ['`probabilities` float32 [N, 10]', '`class_id` int64 [N]', '`class_name` string [N]']
    """
    return Tensor("probabilities", "float32", (classes,)), Tensor("class_id", "int64"), Tensor("class_name", "string")


def describe_signatures(image_shape: tuple[int, int, int], classes: int) -> dict[str, Signature]:
    """Return the signatures by name: three that classify, and one for the penultimate activations.

    Pixels are 0 (the background) to 255. Files are PNG or JPEG, grey or colour, of up to 16,777,216 pixels.

    >>> str(describe_signatures((28, 28, 1), 10)["encoded"].argument)
    '`image_bytes` string [N]'
    """
    pixels = Tensor("images", "float32", image_shape)
    signatures = (
        Signature(SERVING_DEFAULT, pixels, class_outputs(classes)),
        Signature("uint8", Tensor("images", "uint8", image_shape), class_outputs(classes)),  # a quarter of the bytes
        Signature(ENCODED, Tensor(IMAGE_BYTES, "string"), class_outputs(classes)),
        Signature("features", pixels, (Tensor("features", "float32", (FEATURES,)),)),
    )
    return {signature.name: signature for signature in signatures}


def graph_functions(model: keras.Model, class_names: Sequence[str]) -> dict[str, GraphFunction]:
    """Return the function behind each signature, by name.

    >>> from lenet_keras.models import build_lenet5
    >>> list(graph_functions(build_lenet5(), "0123456789"))
    ['serving_default', 'uint8', 'encoded', 'features']
    """
    height, width, _ = model.input_shape[1:]
    classify, features = classify_function(model, class_names), penultimate(model)
    return {
        SERVING_DEFAULT: classify,
        "uint8": lambda images: classify(tf.cast(images, tf.float32)),
        ENCODED: lambda image_bytes: classify(decode_images(image_bytes, height, width)),
        "features": lambda images: {"features": features(images, training=False)},
    }


def classify_function(model: keras.Model, class_names: Sequence[str] | None = None) -> GraphFunction:
    """Return a function from pixels float32 [N, height, width, 1] to `class_outputs`.

    Without `class_names` it does not return `class_name`: not every runtime has strings.

    >>> from lenet_keras.models import build_lenet5
    >>> outputs = classify_function(build_lenet5())(tf.zeros((2, 28, 28, 1)))
    >>> {name: output.shape.as_list() for name, output in outputs.items()}
    {'probabilities': [2, 10], 'class_id': [2]}
    """

    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(images, training=False)
        class_id = tf.argmax(logits, axis=-1)
        outputs = {"probabilities": tf.nn.softmax(logits), "class_id": class_id}
        if class_names is not None:
            outputs["class_name"] = tf.gather(tf.constant(list(class_names)), class_id)
        return outputs

    return classify


def penultimate(model: keras.Model) -> keras.Model:
    """Return the part of `model` that computes the input of its last layer, which is called "logits".

    >>> from lenet_keras.models import build_lenet5
    >>> penultimate(build_lenet5()).output_shape
    (None, 84)
    """
    return keras.Model(model.input, model.get_layer("logits").input)


def write_saved_model(model: keras.Model, class_names: Sequence[str], folder: Path) -> None:
    """Write `model` with its signatures and class names to `folder`, silently.

    Raises:
        OSError, tf.errors.OpError: the folder cannot be written to.
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    functions = graph_functions(model, class_names)
    for name, signature in describe_signatures(model.input_shape[1:], len(class_names)).items():
        argument = signature.argument
        spec = tf.TensorSpec((None, *argument.shape), tf.as_dtype(argument.dtype), argument.name)
        # Keras writes the first endpoint under TensorFlow Serving's default name as well. Its own is the one that
        # `keras.layers.TFSMLayer` calls by default.
        archive.add_endpoint(KERAS_DEFAULT if name == SERVING_DEFAULT else name, functions[name], [spec])
    archive.write_out(str(folder), verbose=False)
    write_labels(folder, class_names)


def write_warmup(saved_model: Path, signatures: Iterable[Signature], images: npt.NDArray[np.uint8]) -> None:
    """Write the requests that TensorFlow Serving replays when it loads a version, so that no user waits for the first.

    There is one for each signature; the file is a TFRecord of `PredictionLog` messages. The model's name is left out,
    as TensorFlow Serving fills it in. A request that failed would keep the version from being loaded
    (tensorflow/serving#1562), so the requests hold images that the signatures were verified on.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     signatures = describe_signatures((28, 28, 1), 10)
    ...     write_warmup(Path(folder), signatures.values(), np.zeros((1, 28, 28, 1), np.uint8))
    ...     len(list(tf.data.TFRecordDataset(str(Path(folder, WARMUP)))))
    4

    Args:
        saved_model: the folder of saved_model.pb.
        signatures: its signatures.
        images: real ones, uint8 0..255 [N, height, width, 1], at least one.

    Raises:
        tf.errors.OpError: the file cannot be written.
    """
    path = saved_model / WARMUP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature in signatures:
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature.name
            array = signature.example_input(images[:_WARMUP_IMAGES])
            request.inputs[signature.argument.name].CopyFrom(tf.make_tensor_proto(array))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def decode_images(contents: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Read images as the models take them: grey, small, their proportions kept, centred on black.

    The rules are those of `lenet_keras.inference.images.read_image`: ITU-R 601 luma, transparent pixels become black,
    black strokes on a transparent page white on black, 16 bits become 8, scaled with antialiasing. An image that
    already has the size keeps its pixels; others may differ from those of `read_image` by two levels of 255, as Pillow
    rounds between its two passes. A camera's EXIF orientation is not applied: TensorFlow does not read it. Of an
    animation, the image that programs without animations show is taken.

    >>> png = encode_png(np.full((56, 28, 1), 200, np.uint8))
    >>> decode_images(tf.constant([png]), 28, 28).numpy()[0, 0, 5:9, 0]
    array([  0.,   0., 200., 200.], dtype=float32)

    Args:
        contents: string [N], the contents of PNG or JPEG files.
        height: of the images that the model takes, in pixels.
        width: of the same.

    Returns:
        float32 [N, height, width, 1], whole numbers from 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: (when the graph runs) a file is neither PNG nor JPEG, is damaged, or has more
            than `MAX_PIXELS` pixels.
    """
    shape = tf.TensorSpec((height, width, 1), tf.float32)
    return tf.map_fn(lambda content: _fit(_grey(content), height, width), contents, fn_output_signature=shape)


def _grey(content: tf.Tensor) -> tf.Tensor:
    """Return grey levels, float32 [height, width, 1], whole numbers from 0 to 255."""
    is_jpeg = tf.io.is_jpeg(content)
    # Or TensorFlow would read formats that `predict` refuses, of a size that is not checked.
    known = tf.debugging.Assert(
        is_jpeg | tf.equal(tf.strings.substr(content, 0, 8), b"\x89PNG\r\n\x1a\n"), ["an image is neither PNG nor JPEG"]
    )
    with tf.control_dependencies([known]):
        content = tf.identity(content)
    size = tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(content)[:2], lambda: _png_size(content))
    small_enough = tf.debugging.assert_less_equal(
        tf.reduce_prod(tf.cast(size, tf.float64)),
        tf.constant(MAX_PIXELS, tf.float64),
        f"an image has more than {MAX_PIXELS} pixels",
    )
    with tf.control_dependencies([small_enough]):
        content = tf.identity(content)
    rgba = tf.cond(is_jpeg, lambda: _jpeg_rgba(content), lambda: _png_rgba(content))
    # Pillow's arithmetic, so that both decide alike.
    weighted = tf.reduce_sum(tf.cast(rgba[..., :3], tf.int32) * tf.constant(_LUMA), axis=-1)
    return _on_black((weighted + 2**15) // 2**16, tf.cast(rgba[..., 3], tf.int32))[..., tf.newaxis]


def _on_black(luminance: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    visible = alpha >= VISIBLE
    darkest = tf.reduce_min(tf.where(visible, luminance, 255))
    brightest = tf.reduce_max(tf.where(visible, luminance, 0))
    colour_says_nothing = (
        (tf.reduce_max(alpha) - tf.reduce_min(alpha) > SIMILAR)
        & (brightest - darkest <= SIMILAR)
        & (brightest < BRIGHT)
    )
    return tf.cast(tf.where(colour_says_nothing, 255, luminance) * alpha // 255, tf.float32)


def _png_size(content: tf.Tensor) -> tf.Tensor:
    # After the 8-byte signature, and the length and name of the first chunk (PNG specification, 11.2.1).
    return tf.io.decode_raw(_bytes(content, 16, 8), tf.int32, little_endian=False)


def _bytes(content: tf.Tensor, start: int, count: int) -> tf.Tensor:
    # Zeros after the end: TensorFlow's own message about a string that is too short quotes it, and is then not UTF-8.
    beginning = tf.strings.substr(content, 0, start + count)
    return tf.strings.substr(tf.strings.join([beginning, b"\0" * (start + count)]), start, count)


def _jpeg_rgba(content: tf.Tensor) -> tf.Tensor:
    # Whether a CMYK file holds inks or their complement is not recorded. TensorFlow reads complements if there is a
    # marker of Adobe's, Pillow always. A marker of the file's own follows this one, and prevails.
    is_cmyk = tf.image.extract_jpeg_shape(content)[2] == 4
    marked = tf.strings.join([b"\xff\xd8", _ADOBE_MARKER, tf.strings.substr(content, 2, -1)])
    content = tf.where(is_cmyk, marked, content)
    # The accurate transform is Pillow's; the default one differs by up to 2 levels.
    rgb = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.concat([rgb, tf.fill(tf.shape(rgb[..., :1]), tf.constant(255, tf.uint8))], axis=-1)


def _png_rgba(content: tf.Tensor) -> tf.Tensor:
    rgba = tf.io.decode_png(content, channels=4)
    depth = tf.cast(tf.io.decode_raw(_bytes(content, 24, 1), tf.uint8)[0], tf.int32)
    alpha = rgba[..., 3:]
    # Where a file of 1, 2 or 4 bits has no alpha, TensorFlow fills in the largest value of that many bits for opaque.
    filled_in = (depth < 8) & ~tf.strings.regex_full_match(content, rb"\C*tRNS\C*")
    return tf.concat([rgba[..., :3], tf.where(filled_in, tf.constant(255, tf.uint8), alpha)], axis=-1)


def _fit(grey: tf.Tensor, height: int, width: int) -> tf.Tensor:
    size = tf.cast(tf.shape(grey)[:2], tf.float32)
    scale = tf.reduce_min(tf.constant([height, width], tf.float32) / size)
    small = tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)
    scaled = tf.round(tf.image.resize(grey, small, antialias=True))
    top, left = (height - small[0]) // 2, (width - small[1]) // 2
    return tf.image.pad_to_bounding_box(scaled, top, left, height, width)
