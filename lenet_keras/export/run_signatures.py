"""A program of its own, run by its path: it calls the signatures of a SavedModel in a process that has no Keras.

    python run_signatures.py SAVED_MODEL INPUTS.npz OUTPUTS.npz

INPUTS holds one array a signature, named "signature/argument"; OUTPUTS gets one a result, "signature/output".
It imports nothing of this package, so it runs however the package was installed.
"""

from __future__ import annotations

import sys

import numpy as np


def main(saved_model: str, inputs: str, outputs: str) -> None:
    """Load `saved_model`, call every signature that `inputs` names and save all that they return."""
    # `import tensorflow` imports Keras if it finds it; with None here it finds none. What runs then is the graph alone,
    # as in TensorFlow Serving.
    sys.modules["keras"] = None  # type: ignore[assignment]
    import tensorflow as tf

    loaded = tf.saved_model.load(saved_model)
    results = {}
    with np.load(inputs) as feeds:
        for key in feeds:
            signature, argument = key.split("/")
            returned = loaded.signatures[signature](**{argument: tf.constant(feeds[key])})
            for name, tensor in returned.items():
                array = tensor.numpy()
                if tensor.dtype == tf.string:
                    array = np.array([text.decode() for text in array.tolist()], dtype=np.str_)
                results[f"{signature}/{name}"] = array
    np.savez(outputs, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
