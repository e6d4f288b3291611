"""The requests that TensorFlow Serving replays when it loads a version, so that no user waits for the first one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from lenet_keras.export.example_inputs import inputs

# The name and place that TensorFlow Serving looks for.
WARMUP = Path("assets.extra", "tf_serving_warmup_requests")
_IMAGES = 4  # a request; enough for the batch dimension to be one


def write_warmup(saved_model: Path, images: npt.NDArray[np.uint8]) -> None:
    """Write one request for each signature into `saved_model`: a TFRecord of `PredictionLog` messages.

    The model's name is left open, as TensorFlow Serving fills it in. A request that failed would keep the version from
    being loaded (tensorflow/serving#1562), so they are made of the images that the signatures were verified on.

    Args:
        saved_model: the folder that holds saved_model.pb.
        images: real ones, uint8 0..255 [N, height, width, 1], at least one.

    Raises:
        tf.errors.OpError: the file cannot be written.
    """
    path = saved_model / WARMUP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, (name, array) in inputs(images[:_IMAGES]).items():
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
