"""A finished run as a row of TensorBoard's HParams tab."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as hparams_summary
from tensorboard.plugins.hparams import summary_v2 as hp  # its `api` needs tf.keras, which may be a legacy one

from lenet_keras.config import LARGEST_SEED, PRECISIONS
from lenet_keras.data.catalogue import DATASETS
from lenet_keras.models import ACTIVATIONS, PLACEMENTS, POOLINGS, VARIANTS
from lenet_keras.runs import event_files
from lenet_keras.tensorboard.callback import raising_os_errors

_LARGE = 10**6  # TensorBoard hides runs whose values are outside a column's interval
# By setting: the values that it may have, and what people call it. TensorBoard takes the columns from any one run, so
# they are the same in all; it shows the first five, the others on request.
_SETTINGS: dict[str, tuple[hp.Domain, str]] = {
    "reg": (hp.Discrete(VARIANTS), "variant"),
    "seed": (hp.IntInterval(0, LARGEST_SEED), "seed"),
    "learning_rate": (hp.RealInterval(0.0, float(_LARGE)), "learning rate"),
    "batch_size": (hp.IntInterval(1, _LARGE), "batch size"),
    "epochs": (hp.IntInterval(1, _LARGE), "epochs"),
    "dataset": (hp.Discrete(list(DATASETS)), "dataset"),
    "activation": (hp.Discrete(ACTIVATIONS), "activation"),
    "pooling": (hp.Discrete(POOLINGS), "pooling"),
    "dropout_rate": (hp.RealInterval(0.0, 1.0), "dropout rate"),
    "dropout_layers": (hp.Discrete(list(PLACEMENTS)), "dropout layers"),
    "batch_norm_layers": (hp.Discrete(list(PLACEMENTS)), "batch norm layers"),
    "weight_decay": (hp.RealInterval(0.0, float(_LARGE)), "weight decay"),
    "early_stopping": (hp.IntInterval(1, _LARGE), "early stopping"),
    "precision": (hp.Discrete(PRECISIONS), "precision"),
}
_COLUMNS = {  # sorted by TensorBoard, by names that it does not show
    setting: hp.HParam(f"{index:02} {setting}", domain, title)
    for index, (setting, (domain, title)) in enumerate(_SETTINGS.items())
}
# In this order: what one chooses by, what is reported, and what shows over-fitting.
_METRICS = [(split, name) for split in ("validation", "test", "train") for name in ("accuracy", "loss")]


def write_hparams(
    run_dir: Path,
    *,
    settings: Mapping[str, bool | int | float | str],
    metrics: Mapping[str, Mapping[str, float] | None],
    step: int,
) -> None:
    """Write the row of a finished run: its settings, and its loss and accuracy on each split, measured after training.

    The events are in the run folder itself, so that the run is one session, whatever its subfolders hold. An earlier
    row is replaced. The metrics are scalars there, tagged `final/<split> <metric>`.

    Args:
        run_dir: the run folder, which must exist.
        settings: those that this run depends on, by name; their columns have names for people.
        metrics: by split, "train", "validation" and "test": {"loss": nats, "accuracy": fraction}; None: not measured.
        step: the last epoch, counted from 0 as on the axes of the curves.

    Raises:
        TypeError: a setting is not a bool, number or string.
        OSError: the folder cannot be written to.
    """
    own = {column.name: settings[setting] for setting, column in _COLUMNS.items() if setting in settings}
    results = [hp.Metric(f"final/{split} {name}", display_name=f"{split} {name}") for split, name in _METRICS]
    # Everything that can fail comes before the first event is written.
    start = [hp.hparams_config_pb(list(_COLUMNS.values()), results), hp.hparams_pb(own, trial_id=_trial_id(run_dir))]
    end = hparams_summary.session_end_pb(api_pb2.STATUS_SUCCESS)
    earlier = event_files(run_dir)
    with raising_os_errors(run_dir):
        writer = tf.summary.create_file_writer(str(run_dir))
        with writer.as_default(step):
            for event in start:
                tf.summary.experimental.write_raw_pb(event.SerializeToString(), step=0)
            for split, name in _METRICS:
                if measured := metrics[split]:
                    tf.summary.scalar(f"final/{split} {name}", measured[name])
            tf.summary.experimental.write_raw_pb(end.SerializeToString(), step=0)
        writer.close()
    for file in earlier:
        file.unlink()


def _trial_id(run_dir: Path) -> str:
    # The HParams tab merges runs of the same name into one row. The end of the path is what people recognise, and all
    # that the column has room for; the digits distinguish runs whose paths end alike.
    path = run_dir.resolve()
    return f"{'/'.join(path.parts[-2:])} ({hashlib.sha256(str(path).encode()).hexdigest()[:4]})"
