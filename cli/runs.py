"""`lenet-keras runs`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lenet_keras.errors import first_line

from . import options


@click.command()
@click.argument("folder", type=options.EXISTING_FOLDER, default="runs", metavar="[DIR]")
@options.as_json
def command(folder: Path, as_json: bool) -> None:
    """List the runs in DIR and below, and the mean of each variant over its seeds.

    Accuracies are measured after training, on every image once.
    """
    from lenet_keras.comparison.overview import find_runs, means_by_variant
    from lenet_keras.comparison.wording import mean_and_deviation

    from .tables import show_table

    runs, problems = find_runs(folder)
    for problem in problems:
        options.warn(first_line(problem))
    variants = means_by_variant(runs)
    if as_json:
        listed = [
            {"run": str(run.path), "epochs": run.epochs, "settings": run.config.to_json(), "metrics": run.metrics}
            for run in runs
        ]
        means = [
            {
                "variant": one.name,
                "dataset": one.dataset,
                "seeds": one.seeds,
                "train": one.train._asdict(),
                "test": one.test._asdict(),
            }
            for one in variants
        ]
        click.echo(json.dumps({"runs": listed, "variants": means}, indent=2))
        return
    rows = []
    for run in runs:
        figures = [
            f"{100 * run.metrics[split]['accuracy']:.2f}" if run.metrics and run.metrics[split] else ""
            for split in ("train", "validation", "test")
        ]
        state = f"{run.epochs}" if run.metrics else f"{run.epochs} of {run.config.epochs}"
        rows.append([run.path, run.config.dataset, run.config.reg, run.config.seed, state, *figures])
    numbers = ["seed", "epochs", "train %", "validation %", "test %"]
    show_table(f"{len(runs)} runs in {folder}", ["run", "dataset", "reg", *numbers], rows, numbers)
    numbers = ["seeds", "train %", "test %"]
    show_table(
        "Finished runs by variant: mean ± standard deviation over seeds",
        ["variant", "dataset", *numbers],
        [
            [one.name, one.dataset, len(one.seeds), mean_and_deviation(one.train), mean_and_deviation(one.test)]
            for one in variants
        ],
        numbers,
    )
