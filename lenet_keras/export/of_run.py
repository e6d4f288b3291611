"""Exporting the model of a finished run."""

from __future__ import annotations

from pathlib import Path

from lenet_keras.data import load
from lenet_keras.data.catalogue import SAMPLE_DATASET, dataset_spec
from lenet_keras.export.layout import DEFAULT_EXPORT_DIR, model_name
from lenet_keras.export.publish import export_model
from lenet_keras.models.variants import parse_reg
from lenet_keras.run_folder import RunFolder
from lenet_keras.run_model import load_run_model

COMPARED = 200  # images; a wrong graph shows on the first, a wrong batch dimension on more than one


def export_run(run_dir: Path, export_dir: Path = DEFAULT_EXPORT_DIR) -> Path:
    """Publish the model of the run in `run_dir` as the next version in `export_dir`, and note it in metrics.json.

    Exported and original are compared on the real images that ship with this package, so no data set is needed.

    Returns:
        The version folder, `<export_dir>/lenet5_<reg>/<version>`.

    Raises:
        LenetKerasError: there is no finished run, its files are damaged, or the export failed; then it left no version.
    """
    folder = RunFolder(run_dir)
    config, metrics = folder.read_config(), folder.read_metrics()
    version = export_model(
        load_run_model(folder),
        export_dir / model_name(parse_reg(config.reg), config.dataset),
        dataset_spec(config.dataset).class_names,
        load(SAMPLE_DATASET).test.images[:COMPARED],
    )
    folder.write_metrics({**metrics, "export": str(version)})
    return version
