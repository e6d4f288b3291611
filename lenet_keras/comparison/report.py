"""The report of a comparison: one HTML page that needs nothing else, neither a network nor JavaScript."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from lenet_keras.comparison.analysis import Variant
from lenet_keras.comparison.figures import as_svg, draw_calibration
from lenet_keras.comparison.results import Result
from lenet_keras.comparison.wording import (
    CAPTION,
    conclusions,
    interval,
    mean_and_deviation,
    p_value,
    table_rows,
)
from lenet_keras.config import TrainConfig
from lenet_keras.data.catalogue import dataset_spec
from lenet_keras.inference.images import encode_png
from lenet_keras.tensorboard.figures import most_confident_mistakes

_MISTAKES = 12  # images of each variant

_SECTIONS = (
    ("results", "Results"),
    ("conclusions", "What may be concluded"),
    ("curves", "Curves"),
    ("statistics", "Statistics"),
    ("classes", "Classes"),
    ("mistakes", "Worst mistakes"),
    ("calibration", "Calibration"),
    ("record", "Settings, versions, time"),
)


def html_report(
    results: Sequence[Result],
    variants: Sequence[Variant],
    images: NDArray[np.uint8] | None,
    curves: Mapping[str, str],
) -> str:
    """Return the page.

    Args:
        results: of all runs.
        variants: what `analyse` found in them.
        images: uint8 [N, height, width, 1], the test images; None: the page names mistakes without showing them.
        curves: the SVG documents "convergence" and "overlay".
    """
    environment = Environment(
        loader=PackageLoader("lenet_keras.comparison", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    spec = dataset_spec(results[0].config.dataset)
    count = len(results[0].labels)
    return environment.get_template("report.html.jinja").render(
        title=f"LeNet-5 on {spec.name}: {', '.join(variant.name for variant in variants)}",
        introduction=f"{len(results)} trainings, {count:,} test images. No epoch and no model is selected by them. "
        f"Baseline: {variants[0].name}.",
        sections=_SECTIONS,
        results=(*table_rows(variants), CAPTION),
        conclusions=conclusions(variants, count),
        curves=[
            _figure(
                curves["convergence"],
                "Accuracy by epoch for each variant: the mean over seeds, and the range from lowest to highest.",
            ),
            _figure(curves["overlay"], "The same curves of all variants in one panel."),
        ],
        convergence=_convergence(variants),
        convergence_note=_CONVERGENCE_NOTE,
        statistics=_statistics(variants),
        classes=_classes(variants, spec.class_names),
        confusions=[_confusion(variant, spec.class_names) for variant in variants],
        mistakes=[_mistakes(results, variant, spec.class_names, images) for variant in variants],
        mistakes_note=f"For each variant, the images of its first seed whose wrong class is most probable, at most "
        f"{_MISTAKES}.",
        calibration=_figure(
            as_svg(draw_calibration(variants)),
            "Accuracy of the test images by the probability of their most probable class, all seeds together. Below "
            "the line, a model is more certain than it is right.",
        ),
        calibration_table=_calibration(variants),
        settings=_settings(variants),
        versions=_versions(results),
        runs=_runs(results),
        program_version=metadata.version("lenet-keras"),
    )


_CONVERGENCE_NOTE = (
    "Converged: the epoch from which on the mean test accuracy is no more than one standard error below the mean of "
    "the last five epochs (the one-standard-error rule of Breiman and others, 1984). Early stopping: training would "
    "have ended so many epochs after the lowest validation loss, and returned to it; the change is in test accuracy, "
    "in points, against training all epochs."
)


def _figure(svg: str, caption: str) -> dict[str, Any]:
    start = svg.index("<svg")
    label = f'<svg role="img" aria-label="{caption}"'
    return {"svg": Markup(label + svg[start + len("<svg") :]), "caption": caption}


def _convergence(variants: Sequence[Variant]) -> tuple[list[str], list[list[str]], str] | None:
    if not any(variant.settings["record_test"] for variant in variants):
        return None
    patiences = [one.patience for one in next((v.early_stopping for v in variants if v.early_stopping), ())]
    head = ["variant", "epochs", "converged at"]
    for patience in patiences:
        head += [f"patience {patience}: epochs", "change of test accuracy"]
    rows = []
    for variant in variants:
        converged = variant.converged or ("not yet" if variant.settings["record_test"] else "")
        row = [variant.name, f"{variant.epochs:g}", str(converged)]
        for one in variant.early_stopping:
            row += [f"{one.epochs:.1f}", interval(one.test_accuracy)]
        rows.append(row + [""] * (len(head) - len(row)))
    return head, rows, "Convergence, and what early stopping would have saved and cost"


def _statistics(variants: Sequence[Variant]) -> list[tuple[list[str], list[list[str]], str]]:
    means = [
        [
            variant.name,
            *(
                f"{100 * one.low:.2f} to {100 * one.high:.2f}" if one.low is not None and one.high is not None else ""
                for one in (variant.train_during, variant.train, variant.test)
            ),
            f"{variant.test_loss.mean:.4f}",
        ]
        for variant in variants
    ]
    head = ["variant", "train (during) %", "train %", "test %", "test loss (nats)"]
    tables = [(head, means, "95 % intervals of the means over seeds, by Student's t distribution")]
    compared = [(variant, variant.versus) for variant in variants if variant.versus]
    if not compared:
        return tables
    pairs = [
        [
            variant.name,
            interval(versus.test),
            p_value(versus.test.p_value) if versus.test.p_value is not None else "",
            p_value(versus.test_p_adjusted) if versus.test_p_adjusted is not None else "",
            "none" if versus.is_blind else "" if versus.detectable is None else f"{100 * versus.detectable:.2f}",
            interval(versus.gap),
            p_value(versus.gap_p_adjusted) if versus.gap_p_adjusted is not None else "",
        ]
        for variant, versus in compared
    ]
    head = ["variant", "test accuracy", "p", "p (Holm)", "detectable", "over-fit gap", "p (Holm)"]
    tables.append((head, pairs, f"Differences from {variants[0].name} in points, paired by seed, with 95 % intervals"))
    seeds = sorted({seed for _, versus in compared for seed in versus.seeds})
    head = ["variant", *(f"seed {seed}" for seed in seeds)]
    images = []
    for variant, versus in compared:
        found = dict(zip(versus.seeds, versus.images, strict=True))
        cells = [
            f"{found[seed].only_first} : {found[seed].only_second}, p {p_value(found[seed].p_value)}"
            if seed in found
            else ""
            for seed in seeds
        ]
        images.append([variant.name, *cells])
    caption = (
        f"Test images on which only the variant is right : only {variants[0].name}, with the exact p-value of "
        "McNemar's test, corrected over the table (Holm)"
    )
    return [*tables, (head, images, caption)]


def _classes(variants: Sequence[Variant], names: Sequence[str]) -> tuple[list[str], list[list[str]], str]:
    rows = [
        [name, *(f"{100 * variant.class_accuracies[index]:.1f}" for variant in variants)]
        for index, name in enumerate(names)
    ]
    return ["class", *(variant.name for variant in variants)], rows, "Test accuracy of each class in %, mean over seeds"


def _confusion(variant: Variant, names: Sequence[str]) -> dict[str, Any]:
    runs = len(variant.seeds)
    rows = [
        [name, *(f"{count / runs:.4g}" if count else "" for count in counts)]
        for name, counts in zip(names, variant.confusion, strict=True)
    ]
    caption = "Test images by true class (row) and predicted class (column), mean over seeds"
    return {"name": variant.name, "head": ["true class", *names], "rows": rows, "caption": caption}


def _mistakes(
    results: Sequence[Result], variant: Variant, names: Sequence[str], images: NDArray[np.uint8] | None
) -> dict[str, Any]:
    first = next(result for result in results if result.variant == variant.name)
    predicted = first.probabilities.argmax(axis=1)
    return {
        "name": f"{variant.name}, seed {first.config.seed}",
        "images": [
            {
                "index": int(index),
                "png": None if images is None else base64.b64encode(encode_png(images[index])).decode(),
                "truth": names[first.labels[index]],
                "predicted": names[predicted[index]],
                "probability": f"{first.probabilities[index].max():.1%}",
            }
            for index in most_confident_mistakes(first.labels, first.probabilities, _MISTAKES)
        ],
    }


def _calibration(variants: Sequence[Variant]) -> tuple[list[str], list[list[str]], str]:
    rows = [[variant.name, mean_and_deviation(variant.calibration_error)] for variant in variants]
    return ["variant", "error in points"], rows, "Expected calibration error (Guo and others, 2017; 15 bins)"


def _settings(variants: Sequence[Variant]) -> tuple[list[str], list[list[str]], str]:
    def shown(settings: Mapping[str, Any], name: str) -> str:
        return "" if name not in settings else "off" if settings[name] is None else str(settings[name])

    names = [name for name in TrainConfig().to_json() if any(name in variant.settings for variant in variants)]
    rows = [[name, *(shown(variant.settings, name) for variant in variants)] for name in names]
    return ["setting", *(variant.name for variant in variants)], rows, "Settings"


def _versions(results: Sequence[Result]) -> tuple[list[str], list[list[str]], str]:
    found: dict[str, dict[str, None]] = {}
    for result in results:
        record = result.record
        facts = {"processor": record.get("processor"), "device": record.get("device"), **record.get("versions", {})}
        for name, value in facts.items():
            found.setdefault(name, {})[str(value)] = None
    rows = [[name, "; ".join(values)] for name, values in found.items()]
    total = sum(result.seconds for result in results)
    rows.append(["time of all epochs", f"{total / 60:,.1f} minutes of one process"])
    return ["", "value"], rows, "Machine and versions, of all runs"


def _runs(results: Sequence[Result]) -> tuple[list[str], list[list[str]], str]:
    rows = [
        [
            f"{result.variant}, seed {result.config.seed}",
            f"{100 * result.train_accuracy_during:.2f}",
            f"{100 * result.metrics['train']['accuracy']:.2f}",
            f"{100 * result.metrics['test']['accuracy']:.2f}",
            str(result.metrics["epochs"]),
            f"{result.seconds:.0f}",
        ]
        for result in results
    ]
    return ["run", "train (during) %", "train %", "test %", "epochs", "seconds"], rows, "All runs"
