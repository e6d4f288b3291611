"""What a comparison trains: variants, each with its settings, and the seeds that all of them share."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from lenet_keras.config import LARGEST_SEED, TrainConfig
from lenet_keras.errors import InvalidArgument, SettingsDiffer, check_integer, check_type, excerpt
from lenet_keras.models import REGULARISATIONS
from lenet_keras.paths import AnyPath, local_path
from lenet_keras.runs import RunFolder

DEFAULT_SEEDS = 5
_COMMON = {"record_test": True}  # for the curves

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.,= -]{0,59}")


@dataclass(frozen=True)
class PlannedRun:
    """One training of a comparison: its variant, its settings, and its folder."""

    variant: str
    config: TrainConfig
    run_dir: Path

    @property
    def name(self) -> str:
        """The variant and the seed, for people."""
        return f"{self.variant}, seed {self.config.seed}"

    @property
    def epochs_trained(self) -> int:
        """The epochs that are trained already."""
        folder = RunFolder(self.run_dir)
        return len(folder.read_history()) if folder.history_csv.exists() else 0

    def is_finished(self) -> bool:
        """Return whether the run is finished, with the settings of the plan.

        Raises:
            SettingsDiffer: a run with other settings is in the folder.
            NotARunFolder: something else is in the folder.
            RunDamaged: its config.json cannot be read.
        """
        folder = RunFolder(self.run_dir)
        if not folder.is_run:
            folder.check_vacant(overwrite=False)
            return False
        if differences := folder.read_config().differences(self.config):
            raise SettingsDiffer(f"{self.run_dir} was trained with other settings ({'; '.join(differences)}).")
        return folder.is_finished


@dataclass(frozen=True)
class Plan:
    """The variants and seeds of a comparison.

    Attributes:
        variants: the settings of each by name; the first is the baseline that the others are compared with. The
            seed in them is of no account.
        seeds: of the runs of every variant, so that differences can be paired.
    """

    variants: Mapping[str, TrainConfig]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.variants:
            raise InvalidArgument("a comparison needs at least one variant")
        for name in self.variants:
            if not _NAME.fullmatch(name) or name != name.strip(" ."):
                raise InvalidArgument(
                    "the name of a variant is that of a folder: up to 60 letters, digits, spaces and _ + - = . , "
                    f"Received: {excerpt(name)}"
                )
        if not self.seeds:
            raise InvalidArgument("a comparison needs at least one seed")
        for seed in self.seeds:
            check_integer("seeds", seed, 0, LARGEST_SEED)
        if len(set(self.seeds)) < len(self.seeds):
            raise InvalidArgument(f"seeds must differ from each other. Received: {excerpt(list(self.seeds))}")
        datasets = {config.dataset for config in self.variants.values()}
        if len(datasets) > 1:
            raise InvalidArgument(f"all variants need the same dataset. Received: {', '.join(sorted(datasets))}")

    def runs(self, folder: Path, task: tuple[int, int] = (1, 1)) -> list[PlannedRun]:
        """List the runs, in `<folder>/<variant>/<seed>`; those of a seed follow each other.

        Of a task (i, n), it is every n-th run, from the i-th, counted from 1.

        >>> plan = Plan({"none": TrainConfig(), "dropout": TrainConfig(reg="dropout")}, seeds=(0, 1))
        >>> [run.name for run in plan.runs(Path("runs"))]
        ['none, seed 0', 'dropout, seed 0', 'none, seed 1', 'dropout, seed 1']
        """
        index, count = task
        runs = [
            PlannedRun(
                name,
                dataclasses.replace(config, seed=seed, strategy="one_device", devices=None),
                folder / name / str(seed),
            )
            for seed in self.seeds
            for name, config in self.variants.items()
        ]
        return runs[index - 1 :: count]


def plan_of(regs: Sequence[str], seeds: Sequence[int], settings: Mapping[str, Any]) -> Plan:
    """Return the plan that compares `regs`, alike in all other settings.

    >>> list(plan_of(["none", "batch_norm"], [0, 1], {"epochs": 3}).variants)
    ['none', 'batch_norm']

    Args:
        regs: regularisations, as in `TrainConfig`.
        seeds: one or more.
        settings: further settings of `TrainConfig` by name. `record_test` is true unless they say otherwise.

    Raises:
        InvalidArgument: an unknown name, a setting out of range, or a regularisation named twice.
    """
    configs = [TrainConfig(**{**_COMMON, **settings, "reg": reg}) for reg in regs]
    names = [config.reg for config in configs]
    if len(set(names)) < len(names):
        raise InvalidArgument(f"regularisations must differ from each other. Received: {', '.join(names)}")
    return Plan(dict(zip(names, configs, strict=True)), tuple(seeds))


def read_plan(path: AnyPath, settings: Mapping[str, Any], seeds: Sequence[int] | None = None) -> Plan:
    """Read a plan from a TOML file: `seeds`, a table `[settings]` for all variants, and a table for each variant.

    A variant is called after its regularisation, or names it with `reg`. Without variants, the four are compared:

        seeds = [0, 1, 2]
        [settings]
        activation = "tanh"
        [variants.none]
        [variants.batch_norm]
        epochs = 40
        [variants."strong decay"]
        reg = "weight_decay"
        weight_decay = 0.01

    Args:
        path: the file.
        settings: further settings by name, which replace those of the table `[settings]`.
        seeds: replace those of the file; None: five, from 0 to 4, if the file has none.

    Raises:
        InvalidArgument: the file is missing or is no TOML, or a name or value in it is wrong.
    """
    path = local_path(path)
    try:
        content = tomli.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} is not valid TOML: {error}") from error
    try:
        return _plan_from(content, settings, seeds)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from error


def _plan_from(content: Mapping[str, Any], settings: Mapping[str, Any], seeds: Sequence[int] | None) -> Plan:
    unknown = set(content) - {"seeds", "settings", "variants"}
    if unknown:
        raise InvalidArgument(f"expected seeds, [settings] and [variants.NAME]. Received: {excerpt(min(unknown))}")
    common = content.get("settings", {})
    check_type("settings", common, dict, "a table")
    variants = content.get("variants", {name: {} for name in REGULARISATIONS})
    check_type("variants", variants, dict, "a table")
    configs = {}
    for name, own in variants.items():
        check_type(f"variants.{name}", own, dict, "a table")
        if "seed" in {**common, **own}:
            raise InvalidArgument("seeds are the same for all variants: write seeds = [...] at the top")
        try:
            configs[name] = TrainConfig.from_json({"reg": name, **_COMMON, **common, **settings, **own})
        except InvalidArgument as error:
            raise InvalidArgument(f"variants.{name}: {error}") from error
    listed = content.get("seeds", list(range(DEFAULT_SEEDS)))
    if isinstance(listed, int) and not isinstance(listed, bool):
        check_integer("seeds", listed, 1, LARGEST_SEED)
        listed = list(range(listed))
    check_type("seeds", listed, list, "a list of integers, or how many, counted from 0")
    return Plan(configs, tuple(seeds) if seeds is not None else tuple(listed))
