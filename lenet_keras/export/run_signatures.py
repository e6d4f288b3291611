"""A stand-alone program, run by its path: call the signatures of a SavedModel in a process that has no Keras.

    echo '["SAVED_MODEL", "INPUTS.npz", "OUTPUTS.npz"]' | python run_signatures.py

INPUTS holds one array per call, named "signature/argument"; OUTPUTS receives one per result, "signature/output".
Strings travel as NumPy's bytes. It imports nothing of this package, so it runs however the package was installed.

TensorFlow is imported before the standard input is read, so that a process can be started before there is a SavedModel.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

# Python puts a program's folder first on its path, where the names of our modules would hide other packages'.
if Path(sys.path[0]) == Path(__file__).parent:
    del sys.path[0]

import numpy as np

BATCH = 1000  # examples at a time, which bounds the memory used


def main() -> None:
    """Load a SavedModel, call every signature that the inputs name and save all that they return."""
    # `import tensorflow` imports Keras if it finds it; with None here it finds none. What runs then is the graph alone,
    # as in TensorFlow Serving. Without pandas, it only starts sooner.
    sys.modules.update({"keras": None, "pandas": None})  # type: ignore[dict-item]
    import tensorflow as tf

    saved_model, inputs, outputs = json.load(sys.stdin)
    loaded = tf.saved_model.load(saved_model)
    results: dict[str, list[np.ndarray]] = {}
    with np.load(inputs) as calls:
        for key, values in calls.items():
            signature, argument = key.split("/")
            for start in range(0, len(values), BATCH):
                part = tf.constant(values[start : start + BATCH])
                for name, tensor in loaded.signatures[signature](**{argument: part}).items():
                    array = np.array(tensor.numpy().tolist()) if tensor.dtype == tf.string else tensor.numpy()
                    results.setdefault(f"{signature}/{name}", []).append(array)
    # NumPy's stub takes the arrays' names for its own options.
    np.savez(outputs, **{key: np.concatenate(parts) for key, parts in results.items()})  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
