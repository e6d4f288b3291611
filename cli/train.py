"""`lenet-keras train`."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lenet_keras.config import STRATEGIES, TrainConfig
from lenet_keras.distribution.cluster import DEFAULT_CLUSTER_TIMEOUT, cluster_source, find_cluster
from lenet_keras.distribution.join import reject
from lenet_keras.distribution.local import end_with_starter, is_local_worker, run_local_workers
from lenet_keras.errors import InvalidArgument
from lenet_keras.models import parse_reg
from lenet_keras.serving.config import check_export, model_name

from . import options
from .console import silence
from .interruption import interruption
from .settings import QUICK, reject_without_effect, training_settings

if TYPE_CHECKING:
    from lenet_keras.runs import RunFolder

_DEFAULT = TrainConfig()
_QUICK_EPOCHS = 25


@click.command()
@click.option(
    "--reg",
    type=options.Reg(),
    multiple=True,
    default=["none"],
    help="Regularisation; several are combined as dropout+weight_decay.",
)
@training_settings
@click.option("--quick", is_flag=True, help="A trial of half a minute, on the sample included with lenet-keras.")
@options.data_dir
@click.option("--seed", type=int, default=_DEFAULT.seed, help="Seed for weights, order, held-out images and dropout.")
@click.option("--strategy", type=options.Choice(STRATEGIES), default=_DEFAULT.strategy, help="What shares a batch.")
@click.option("--devices", metavar="NAMES", help="Devices, such as GPU:0,GPU:1 or CPU:0,CPU:1.  [default: the fastest]")
@click.option("--workers", type=click.IntRange(1, 64), help="Train with this many processes on this machine.")
@click.option(
    "--cluster-timeout",
    type=click.FloatRange(1),
    default=DEFAULT_CLUSTER_TIMEOUT,
    metavar="SECONDS",
    help="How long to wait for all workers to join.",
)
@click.option("--record-test", is_flag=True, help="Measure the test images after every epoch; nothing selects on it.")
@click.option("--run-dir", type=options.FOLDER, help="Folder of this run.  [default: runs/DATASET/REG/SEED]")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="run",
    type=options.Choice(["run", "auto"]),
    help="Continue the run from its last saved state; auto starts one if there is none.",
)
@click.option("--checkpoint-steps", type=int, metavar="N", help="Save every N steps, not only at the end of an epoch.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in the folder.")
@options.export_dir
@click.option("--no-export", is_flag=True, help="Do not export a SavedModel.")
@options.as_json
@options.quiet
@options.verbose
def command(
    quick: bool,
    run_dir: Path | None,
    data_dir: Path | None,
    resume: str | None,
    overwrite: bool,
    export_dir: Path,
    no_export: bool,
    workers: int | None,
    cluster_timeout: float,
    as_json: bool,
    verbose: bool,
    reg: tuple[str, ...],
    **settings: Any,
) -> None:
    """Train a LeNet-5 variant and export it as a SavedModel.

    Leaves a run folder with its settings, history, metrics, model and TensorBoard logs. The test images are used once,
    after training.
    """
    from lenet_keras import runtime
    from lenet_keras.runs import RunFolder, default_run_dir

    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite are mutually exclusive.")
    reject_without_effect(reg)
    if no_export:
        options.reject_given("export_dir", "with --no-export")
    if quick:
        settings |= {
            name: value for name, value in {**QUICK, "epochs": _QUICK_EPOCHS}.items() if not options.given(name)
        }
    config = TrainConfig(reg=parse_reg(reg), **settings)
    if workers and config.strategy not in ("auto", "multi_worker"):
        raise click.UsageError(f"--workers cannot be combined with --strategy {config.strategy}, for a single process.")
    if not no_export and cluster_source(config.strategy) is None:
        check_export(export_dir, model_name(parse_reg(config.reg), config.dataset))
    if workers and not is_local_worker(workers):
        sys.exit(run_local_workers([sys.executable, "-m", __package__, *sys.argv[1:]], workers))
    end_with_starter()
    folder = RunFolder(run_dir or default_run_dir(config))
    if not resume and cluster_source(config.strategy) is None:
        folder.check_vacant(overwrite)  # `train` checks it again, seconds later, when TensorFlow is loaded
    runtime.load_tensorflow(verbose)
    cluster = find_cluster(config.strategy)  # TensorFlow parses Slurm's variables
    is_chief = cluster is None or cluster.is_chief
    if cluster is not None and is_chief and not no_export:
        try:
            check_export(export_dir, model_name(parse_reg(config.reg), config.dataset))
        except InvalidArgument as error:
            reject(cluster, str(error))
            raise
    if not is_chief:
        silence()
    before = _config_time(folder)
    try:
        _train(config, folder, data_dir, resume, overwrite, cluster_timeout, has_bars=not verbose)
        if is_chief:
            metrics = folder.read_metrics()
            if not no_export:
                metrics["export"] = _export(folder, export_dir, data_dir, is_resumed=resume is not None)
    except KeyboardInterrupt:
        interruption.arrive()
        if is_chief:
            _explain_how_to_continue(folder, is_untouched=overwrite and _config_time(folder) == before)
        sys.exit(interruption.exit_code)
    except OSError:
        if is_chief and folder.is_run:
            _explain_how_to_continue(folder)
        raise
    if not is_chief:
        return
    if as_json:
        click.echo(json.dumps(metrics, indent=2))
    else:
        _show_result(folder, metrics)


def _train(
    config: TrainConfig,
    folder: RunFolder,
    data_dir: Path | None,
    resume: str | None,
    overwrite: bool,
    cluster_timeout: float,
    has_bars: bool,
) -> None:
    import keras

    from lenet_keras.training.train import train

    from .progress import epoch_progress

    # Within an epoch, a signal waits until the loop is between two of its calls, where no step is lost.
    between_calls = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: interruption.hold_back(),  # noqa: ARG005
        on_train_batch_end=lambda batch, logs: interruption.check(),  # noqa: ARG005
        on_train_end=lambda logs: interruption.let_through(),  # noqa: ARG005
    )
    with epoch_progress(config.epochs, has_bars) as progress:
        train(
            config,
            folder.path,
            data_dir=data_dir,
            resume="auto" if resume == "auto" else resume is not None,
            overwrite=overwrite,
            callbacks=[progress, between_calls],
            cluster_timeout=cluster_timeout,
        )


def _export(folder: RunFolder, export_dir: Path, data_dir: Path | None, is_resumed: bool) -> str:
    from lenet_keras.export.publish import export_run, published_version

    # A run that was finished already may have been exported, to this folder or to another.
    version = published_version(folder.path, export_dir) if is_resumed else None
    if version is None:
        options.notice("exporting: the SavedModel is run in a new process and compared with the model")
        logging.getLogger("lenet_keras.data").setLevel(logging.WARNING)  # training has named the dataset's source
        version = export_run(folder.path, export_dir, data_dir=data_dir)
    return str(version)


def _config_time(folder: RunFolder) -> int | None:
    return folder.config_json.stat().st_mtime_ns if folder.is_run else None


def _explain_how_to_continue(folder: RunFolder, is_untouched: bool = False) -> None:
    if folder.is_run and is_untouched:
        options.warn("Stopped before training started. The earlier run is unchanged.")
    elif folder.is_finished:
        options.warn(f"Stopped. Training is finished. Export the model with: lenet-keras export {folder.path}")
    elif folder.is_run:
        words = [word for word in sys.argv[1:] if word != "--overwrite"]
        resume = [] if any(word.startswith("--resume") for word in words) else ["--resume"]
        line = shlex.join(["lenet-keras", *words, *resume])
        options.warn(f"Stopped. The progress so far is kept. Continue with: {line}")
    else:
        options.warn("Stopped before training started.")


def _show_result(folder: RunFolder, metrics: dict[str, Any]) -> None:
    from lenet_keras.data.catalogue import dataset_spec

    from .tables import show_metrics

    spec = dataset_spec(metrics["dataset"])
    caution = f" (a sample of {spec.test_size} images: not comparable with the full dataset)" if spec.is_sample else ""
    title = f"LeNet-5, {metrics['reg']}, {metrics['epochs']} epochs on {metrics['dataset']}{caution}"
    show_metrics(title, metrics)
    click.echo(f"run:     {folder.path}")
    if metrics["export"]:
        click.echo(f"export:  {metrics['export']}")
    shown = "" if folder.path.parts[0] == "runs" else f" {folder.path}"
    click.echo(f"next:    lenet-keras tensorboard{shown}")
    click.echo(f"         lenet-keras predict --model {metrics['export'] or folder.path} IMAGE.png")
