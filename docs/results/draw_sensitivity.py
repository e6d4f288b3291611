"""Draw docs/results/sensitivity.svg: how the accuracies change with what the report leaves open.

    python docs/results/draw_sensitivity.py

It reads docs/results/sensitivity/results.csv, with one seed, and docs/results/report/results.csv, with five seeds of
the setting from which the choices depart; the first of them is the one.
"""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

from lenet_keras.comparison.figures import COLOURS, as_svg
from lenet_keras.comparison.wording import REPORTED
from lenet_keras.files import write_atomically

FOLDER = Path(__file__).parent
MARKERS = "osD^"
COLUMNS = {"train_accuracy": "train accuracy in %", "test_accuracy": "test accuracy in %"}


def read(name: str) -> dict[str, list[dict[str, str]]]:
    """Return the rows of a comparison's results.csv by variant."""
    found: dict[str, list[dict[str, str]]] = {}
    with (FOLDER / name / "results.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["variant"], []).append(row)
    return found


def main() -> None:
    """Draw a panel for each accuracy: a row for each choice, a marker for each variant, the report's as lines."""
    seeds, choices = read("report"), read("sensitivity")
    rows = list(dict.fromkeys(name.partition(", ")[2] for name in choices))
    labels = ["report.toml, five seeds", "report.toml, seed 0", *rows]
    figure = Figure(figsize=(9, 0.4 * len(labels) + 1.4), layout="constrained")
    panels = figure.subplots(1, len(COLUMNS), sharey=True)
    for index, (panel, (column, title)) in enumerate(zip(panels, COLUMNS.items(), strict=True)):
        for place, (reg, reported) in enumerate(REPORTED.items()):
            style = {"color": COLOURS[place], "marker": MARKERS[place], "markersize": 5, "linestyle": "none"}
            panel.axvline(reported[index], color=COLOURS[place], linewidth=1, linestyle=":", alpha=0.8)
            values = [100 * float(row[column]) for row in seeds[reg]]
            below = 0.14 * (place - 1.5)  # so that equal accuracies do not hide each other
            panel.hlines(below, min(values), max(values), color=COLOURS[place], linewidth=2)
            panel.plot(sum(values) / len(values), below, label=reg, **style)
            panel.plot(values[0], 1 + below, **style)
            for row, name in enumerate(rows, start=2):
                if found := choices.get(f"{reg}, {name}"):
                    panel.plot(100 * float(found[0][column]), row + below, **style)
        panel.set(xlabel=title, yticks=range(len(labels)), yticklabels=labels)
        panel.grid(axis="y", alpha=0.3)
    panels[0].invert_yaxis()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    write_atomically(FOLDER / "sensitivity.svg", as_svg(figure).encode())


if __name__ == "__main__":
    main()
