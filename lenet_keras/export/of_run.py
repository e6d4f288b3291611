"""Exporting the model of a finished run."""

from __future__ import annotations

from pathlib import Path

from lenet_keras.data import load
from lenet_keras.data.catalogue import dataset_spec
from lenet_keras.errors import InvalidArgument
from lenet_keras.export.card import CARD, model_card
from lenet_keras.export.layout import DEFAULT_EXPORT_DIR, model_name
from lenet_keras.export.publish import export_model, remove_oldest
from lenet_keras.files import write_atomically
from lenet_keras.models.variants import parse_reg
from lenet_keras.notices import Notify, ignore
from lenet_keras.run_folder import RunFolder
from lenet_keras.run_model import load_run_model
from lenet_keras.serving.config import write_server_configs


def export_run(
    run_dir: Path,
    export_dir: Path = DEFAULT_EXPORT_DIR,
    *,
    data_dir: Path | None = None,
    keep: int | None = None,
    notify: Notify = ignore,
) -> Path:
    """Publish the model of the run in `run_dir` as the next version in `export_dir`, and note it in metrics.json.

    Before it appears, the SavedModel is run in a fresh process on the test images: it must agree with the model, and
    its accuracy be that of metrics.json. The model's card and TensorFlow Serving's configuration files in `export_dir`
    are brought up to date.

    Args:
        run_dir: a finished run.
        export_dir: where the models lie.
        data_dir: where the run's data set lies, as `lenet_keras.data.load` takes it.
        keep: how many versions of the model to keep, 1 or more; older ones are removed. None keeps all.
        notify: gets one-line notices: which data source.

    Returns:
        The version folder, `<export_dir>/lenet5_<reg>/<version>`.

    Raises:
        InvalidArgument: `keep` is below 1.
        LenetKerasError: there is no finished run, its files are damaged, its data set cannot be had, or the export
            failed; then it left no version.
        OSError: the version is published, but what goes with it could not be written.
    """
    if keep is not None and keep < 1:
        raise InvalidArgument(f"keep must be 1 or more. Received: {keep}")
    folder = RunFolder(run_dir)
    config, metrics, record = folder.read_config(), folder.read_metrics(), folder.read_record()
    model = load_run_model(folder)
    spec = dataset_spec(config.dataset)
    test = load(config.dataset, data_dir, notify).test
    model_dir = export_dir / model_name(parse_reg(config.reg), config.dataset)
    version = export_model(model, model_dir, spec.class_names, test, accuracy=metrics["test"]["accuracy"])
    write_atomically(model_dir / CARD, model_card(version, config, record, metrics, spec, test.images[0]).encode())
    try:
        # Read again: another export of the run may have noted its own meanwhile.
        folder.write_metrics({**folder.read_metrics(), "export": str(version)})
    except OSError as error:  # a run may lie where nobody may write; the version is published all the same
        notify(f"{folder.metrics_json} does not name the export: {error.strerror}")
    if keep is not None:
        remove_oldest(model_dir, keep)
    write_server_configs(export_dir)
    return version
