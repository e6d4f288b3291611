"""From a plan, or from finished runs, to the files that a comparison leaves."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenet_keras.comparison.analysis import Variant, analyse, curve
from lenet_keras.comparison.figures import as_svg, draw_convergence, draw_overlay, save_png
from lenet_keras.comparison.jobs import places_for, train_side_by_side
from lenet_keras.comparison.pace import Pace, known_pace, measured_pace, seconds_for
from lenet_keras.comparison.plan import Plan, PlannedRun
from lenet_keras.comparison.report import html_report
from lenet_keras.comparison.results import Result, read_result, write_epochs, write_results
from lenet_keras.comparison.wording import conclusions, markdown_table
from lenet_keras.data.load import load
from lenet_keras.errors import LenetKerasError
from lenet_keras.files import write_atomically
from lenet_keras.paths import AnyPath, local_path

logger = logging.getLogger(__name__)

RUNS = "runs"  # the folder of a comparison's runs, below its own


@dataclass(frozen=True)
class Comparison:
    """What a comparison found, and the folder of its files."""

    path: Path
    results: list[Result]
    variants: list[Variant]

    def summary(self) -> dict[str, Any]:
        """Return what summary.json holds: JSON values only."""
        images = len(self.results[0].labels)
        return {
            "dataset": self.results[0].config.dataset,
            "test_images": images,
            "baseline": self.variants[0].name,
            "variants": [_as_json(dataclasses.asdict(variant)) for variant in self.variants],
            "conclusions": conclusions(self.variants, images),
            "seconds": sum(result.seconds for result in self.results),
            "processors": sorted({str(result.record.get("processor")) for result in self.results}),
            "versions": self.results[0].record.get("versions", {}),
        }


@dataclass(frozen=True)
class Progress:
    """How far a comparison is.

    Attributes:
        run: the one that has made progress.
        epochs: of it that are trained.
        is_finished: whether it is measured and saved as well.
        epochs_left: of all runs that this process trains.
        seconds_left: for them; None until it can be told.
        runs: how many this process trains.
    """

    run: PlannedRun
    epochs: float
    is_finished: bool
    epochs_left: float
    seconds_left: float | None
    runs: int


def compare(
    plan: Plan,
    out: AnyPath,
    *,
    data_dir: AnyPath | None = None,
    jobs: int | None = None,
    task: tuple[int, int] = (1, 1),
    listener: Callable[[Progress], None] = lambda progress: None,  # noqa: ARG005
) -> Comparison | None:
    """Train the runs of a plan that are not finished, side by side, and leave tables, figures and a report in `out`.

    A comparison that was interrupted continues where it stopped. Runs that are finished, with the same settings, are
    used as they are.

    Args:
        plan: the variants and seeds.
        out: the folder of the comparison; its runs are in `<out>/runs/<variant>/<seed>`.
        data_dir: the folder that holds the dataset, as in `lenet_keras.data.load.load`.
        jobs: how many trainings at a time; None: one for each GPU, or for each core.
        task: (i, n): train the runs of this task only, as in `Plan.runs`. Processes on several machines that share
            `out` divide the runs so.
        listener: called several times a second, by several threads, one at a time.

    Returns:
        What was found; None if runs of other tasks are not finished yet.

    Raises:
        SettingsDiffer, NotARunFolder, RunDamaged: a folder of a run holds another one, or something else.
        LenetKerasError: a training failed; the message names it. Nothing that was trained is lost.
        OSError: `out` cannot be written to.
    """
    out = local_path(out)
    runs = plan.runs(out / RUNS)
    finished, own = _finished_and_left(plan, out, task)
    if finished:
        logger.info("%d of %d runs are finished already", len(finished), len(runs))
    if own:
        places = places_for(jobs)[: len(own)]
        pace = Pace(own, len(places))

        def tell(run: PlannedRun, epochs: float, is_finished: bool) -> None:
            pace.update(run, epochs)
            listener(Progress(run, epochs, is_finished, pace.epochs_left, pace.seconds_left, len(own)))

        train_side_by_side(own, places, tell, data_dir)
    if task != (1, 1) and not all(run.is_finished() for run in runs):
        return None
    return write_comparison([read_result(run.run_dir, run.variant) for run in runs], out, data_dir=data_dir)


def expected_seconds(
    plan: Plan,
    out: AnyPath,
    *,
    data_dir: AnyPath | None = None,
    jobs: int | None = None,
    task: tuple[int, int] = (1, 1),
) -> float:
    """Return how long `compare` would take: from runs in `out`, or from an epoch of each variant, trained for that.

    Arguments and errors are those of `compare`.
    """
    out = local_path(out)
    runs = _finished_and_left(plan, out, task)[1]
    if not runs:
        return 0.0
    places = places_for(jobs)[: len(runs)]
    pace = known_pace(plan.runs(out / RUNS))
    unknown = [run for run in runs if run.variant not in pace]
    if unknown:
        logger.info("measuring the time of an epoch of each variant")
        pace |= measured_pace(unknown, places, data_dir)
    left = {run: float(run.config.epochs - run.epochs_trained) for run in runs}
    return seconds_for(left, pace, len(places))


def compare_runs(paths: Sequence[AnyPath], out: AnyPath, *, data_dir: AnyPath | None = None) -> Comparison:
    """Compare finished runs, each under the name of its regularisation; the first is one of the baseline.

    Args:
        paths: run folders.
        out: the folder for tables, figures and report.
        data_dir: as in `compare`.

    Raises:
        RunNotFound, RunUnfinished, RunDamaged: a folder holds no finished run, or its files are damaged.
        InvalidArgument: the runs cannot be compared.
        OSError: `out` cannot be written to.
    """
    return write_comparison([read_result(path) for path in paths], out, data_dir=data_dir)


def write_comparison(results: Sequence[Result], out: AnyPath, *, data_dir: AnyPath | None = None) -> Comparison:
    """Analyse results and write results.csv, epochs.csv, table.md, summary.json, the figures and report.html.

    Raises:
        InvalidArgument: the results cannot be compared.
        OSError: `out` cannot be written to.
    """
    out = local_path(out)
    variants = analyse(results)
    comparison = Comparison(out, list(results), variants)
    try:
        images = load(results[0].config.dataset, data_dir).test.images
    except LenetKerasError as error:  # the runs may have been trained elsewhere
        logger.warning("the report shows no images: %s", error)
        images = None
    out.mkdir(parents=True, exist_ok=True)
    write_results(out / "results.csv", results)
    write_epochs(out / "epochs.csv", results)
    write_atomically(out / "table.md", markdown_table(variants).encode())
    write_atomically(out / "summary.json", (json.dumps(comparison.summary(), indent=2) + "\n").encode())
    measured = ("test_accuracy", "val_accuracy", "accuracy")  # after an epoch; the last, during it, is always there
    column = next(column for column in measured if curve(results, column) is not None)
    curves = {}
    for name, draw in (("convergence", draw_convergence), ("overlay", draw_overlay)):
        figure = draw(results, column)
        save_png(figure, out / f"{name}.png")
        curves[name] = as_svg(figure)
        write_atomically(out / f"{name}.svg", curves[name].encode())
    write_atomically(out / "report.html", html_report(results, variants, images, curves).encode())
    return comparison


def _finished_and_left(plan: Plan, out: Path, task: tuple[int, int]) -> tuple[set[PlannedRun], list[PlannedRun]]:
    # The finished runs of the plan, each of which may be refused, and those of the task that are to be trained.
    finished = {run for run in plan.runs(out / RUNS) if run.is_finished()}
    return finished, [run for run in plan.runs(out / RUNS, task) if run not in finished]


def _as_json(value: Any) -> Any:
    # Tuples with names become objects, and NaN, which JSON does not have, becomes null.
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(one) for one in value]
    return None if isinstance(value, float) and value != value else value
