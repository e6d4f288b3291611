"""`lenet-keras compare`."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lenet_keras.models import REGULARISATIONS

from . import options
from .console import console, is_silent
from .options import given
from .settings import QUICK, reject_without_effect, training_settings

if TYPE_CHECKING:
    from lenet_keras.comparison.compare import Comparison, Progress
    from lenet_keras.comparison.plan import Plan

_QUICK_EPOCHS, _QUICK_SEEDS = 3, 2


def _task(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, int]:
    index, _, count = value.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise click.BadParameter(f"expected I/N with I from 1 to N, such as 1/4. Received: {value}")
    return int(index), int(count)


@click.command()
@click.option(
    "--reg",
    type=options.Reg(),
    multiple=True,
    default=list(REGULARISATIONS),
    metavar="REG",
    help="A variant, such as dropout or dropout+weight_decay; repeat the option. The first is the baseline.",
)
@click.option("--seeds", type=click.IntRange(1), default=5, help="Trainings of each variant.")
@click.option("--first-seed", type=int, default=0, help="Seed of the first one; the others count up from it.")
@training_settings
@click.option(
    "--config",
    type=options.FILE,
    metavar="FILE",
    help="TOML file with the settings of each variant; options replace what it says of all of them.",
)
@click.option("--from", "from_runs", is_flag=True, help="Train nothing: compare the finished runs RUN...")
@click.argument("runs", type=options.FOLDER, nargs=-1, metavar="[RUN...]")
@click.option("--jobs", type=click.IntRange(1), help="Trainings at a time.  [default: one for each GPU, or each core]")
@click.option(
    "--task",
    callback=_task,
    metavar="I/N",
    default="1/1",
    help="Train only part I of N of the runs, for arrays of jobs that share a folder.",
)
@click.option("--quick", is_flag=True, help="A trial of a minute: few epochs on the sample included with lenet-keras.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be trained, and how long that would take: from earlier runs, or by training an epoch of each "
    "variant.",
)
@options.data_dir
@options.quiet
@click.option("--out", type=options.FOLDER, help="Folder of the comparison.  [default: comparisons/DATASET]")
@options.as_json
def command(
    reg: tuple[str, ...],
    seeds: int,
    first_seed: int,
    config: Path | None,
    from_runs: bool,
    runs: tuple[Path, ...],
    jobs: int | None,
    task: tuple[int, int],
    quick: bool,
    dry_run: bool,
    data_dir: Path | None,
    out: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Compare variants: train each with several seeds, and say what the differences mean.

    Leaves tables, figures and report.html. A comparison that was interrupted continues where it stopped.
    """
    from lenet_keras.comparison import compare as library

    if from_runs != bool(runs):
        raise click.UsageError("--from needs the folders of finished runs: lenet-keras compare --from RUN...")
    if from_runs:
        for name in ("reg", "seeds", "first_seed", "config", "jobs", "task", "quick", "dry_run", *settings):
            options.reject_given(name, "with --from: nothing is trained")
        found = library.compare_runs(runs, out or Path("comparisons", "from-runs"), data_dir=data_dir)
        _show(found, as_json)
        return
    plan = _plan(reg, seeds, first_seed, config, quick, settings)
    folder = out or Path("comparisons", next(iter(plan.variants.values())).dataset.replace("/", "_"))
    if dry_run:
        _show_plan(plan, folder, jobs, task, data_dir, as_json)
        return
    with _progress() as listener:
        comparison = library.compare(plan, folder, data_dir=data_dir, jobs=jobs, task=task, listener=listener)
    if comparison is None:
        options.notice("The runs of this task are finished. The last task writes the report.")
        return
    _show(comparison, as_json)


def _plan(
    reg: tuple[str, ...], seeds: int, first_seed: int, config: Path | None, quick: bool, settings: dict[str, Any]
) -> Plan:
    from lenet_keras.comparison.plan import plan_of, read_plan

    chosen = {name: value for name, value in settings.items() if given(name)}
    if quick:
        chosen = {**QUICK, "epochs": _QUICK_EPOCHS, **chosen}
        seeds = seeds if given("seeds") else _QUICK_SEEDS
    numbers = list(range(first_seed, first_seed + seeds))
    if config is None:
        reject_without_effect(reg)
        return plan_of(reg, numbers, chosen)
    if given("reg"):
        raise click.UsageError("--reg and --config are mutually exclusive: the file names the variants.")
    return read_plan(config, chosen, numbers if given("seeds") or given("first_seed") or quick else None)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Yield what shows the progress of runs on stderr: a line per run, and live bars in a terminal."""
    numbers = itertools.count(1)

    def line(progress: Progress) -> None:
        if progress.is_finished:
            left = f", {in_words(progress.seconds_left)} left" if progress.seconds_left else ""
            options.notice(f"{next(numbers)}/{progress.runs}: {progress.run.name}{left}")

    if is_silent() or not console().is_interactive:
        yield line
        return
    from .bars import TaskID, live_bars

    with live_bars("note") as bars:
        total = bars.add_task("all runs", total=None, note="")
        tasks: dict[str, TaskID] = {}
        most = 0.0

        def show(progress: Progress) -> None:
            nonlocal most
            run, epochs = progress.run, progress.run.config.epochs
            most = max(most, progress.epochs_left)
            left = "" if progress.seconds_left is None else f"{in_words(progress.seconds_left)} left"
            bars.update(total, total=most, completed=most - progress.epochs_left, note=left)
            if run.name not in tasks:
                tasks[run.name] = bars.add_task(run.name, total=epochs, note="")
            bars.update(tasks[run.name], completed=progress.epochs, note=f"{int(progress.epochs)}/{epochs}")
            if progress.is_finished:
                bars.remove_task(tasks.pop(run.name))
            line(progress)

        yield show


def in_words(seconds: float) -> str:
    """Return a duration for people, such as "40 s", "12 min" or "1 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _show_plan(
    plan: Plan, folder: Path, jobs: int | None, task: tuple[int, int], data_dir: Path | None, as_json: bool
) -> None:
    from lenet_keras.comparison.compare import RUNS, expected_seconds

    from .tables import show_table

    runs = plan.runs(folder / RUNS, task)
    finished = {run.run_dir: run.is_finished() for run in runs}
    seconds = expected_seconds(plan, folder, data_dir=data_dir, jobs=jobs, task=task)
    if as_json:
        rows = [
            {"run": str(run.run_dir), "finished": finished[run.run_dir], "settings": run.config.to_json()}
            for run in runs
        ]
        click.echo(json.dumps({"runs": rows, "seconds": round(seconds)}, indent=2))
        return
    state = {True: "finished", False: "to be trained"}
    show_table(
        f"{len(runs)} runs, {len(runs) - sum(finished.values())} to be trained: about {in_words(seconds)}",
        ["variant", "seed", "epochs", "state", "run"],
        [[run.variant, run.config.seed, run.config.epochs, state[finished[run.run_dir]], run.run_dir] for run in runs],
        ["seed", "epochs"],
    )


def _show(comparison: Comparison, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(comparison.summary(), indent=2))
        return
    from lenet_keras.comparison.wording import CAPTION, conclusions, table_rows

    from .tables import show_table

    head, rows = table_rows(comparison.variants)
    show_table(f"LeNet-5 on {comparison.results[0].config.dataset}", head, rows, head[1:])
    for paragraph in (CAPTION, *conclusions(comparison.variants, len(comparison.results[0].labels))):
        click.echo(f"{click.wrap_text(paragraph, width=100)}\n")
    click.echo(f"report:  {comparison.path / 'report.html'}")
