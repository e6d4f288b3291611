"""TensorFlow Serving's warm-up requests, read with its own messages and replayed."""

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2


def test_each_signature_has_one_request_that_works_and_is_of_real_images(published, images, expected):
    path = published / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]
    exported = tf.saved_model.load(str(published))
    replayed = {}
    for log in logs:
        request = log.predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        signature = request.model_spec.signature_name
        replayed[signature] = exported.signatures[signature](**inputs)
    assert set(replayed) == {"serving_default", "uint8", "encoded", "features"}
    assert len(logs) == 4
    for signature in ("serving_default", "uint8", "encoded"):
        np.testing.assert_allclose(replayed[signature]["probabilities"], expected[:4], rtol=0, atol=1e-6)
    assert replayed["features"]["features"].shape == (4, 84)
