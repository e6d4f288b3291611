"""The trained model of a run, from its model.keras."""

from __future__ import annotations

import keras

from lenet_keras.errors import LenetKerasError, first_line
from lenet_keras.run_folder import RunFolder


def load_run_model(folder: RunFolder) -> keras.Model:
    """The trained model of a run, loaded in Keras's safe mode: a file from a stranger can run no code of theirs.

    Raises:
        LenetKerasError: the run is not finished, or its model.keras is missing or damaged.
    """
    folder.read_metrics()
    try:
        return keras.saving.load_model(folder.model_keras, safe_mode=True)
    except Exception as error:  # damage shows as nearly any type: OSError, ValueError, KeyError, BadZipFile, zlib.error
        raise LenetKerasError(
            f"{folder.model_keras} is damaged, or holds what no model of this program does ({first_line(error)}). "
            "Train the run again with --overwrite."
        ) from error
