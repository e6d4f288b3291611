"""Which versions of a model are to be loaded, and what its labels may name, while an export takes over from another.

TensorFlow Serving's ServerCore (tensorflow_serving/model_servers/server_core.cc, `ReloadConfig` and
`UpdateModelVersionLabelMap`) updates the labels of a configuration before it loads the versions, and refuses the whole
configuration if a label would move to a version that is not AVAILABLE. So an export takes over in steps: the new
version is loaded beside the old ones, with the labels as they are; once it is AVAILABLE, the labels move; and then the
version that no label needs goes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Served:
    """What a server is told of a model.

    Attributes:
        versions: the numbers of those to load.
        labels: the version that each label names, always one of them.
    """

    versions: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)


def allowed_labels(wanted: Mapping[str, int], labels: Mapping[str, int], available: Collection[int]) -> dict[str, int]:
    """Return the labels that a server may have now: each names a version that is AVAILABLE.

    >>> allowed_labels({"stable": 2, "canary": 3}, {"stable": 1, "canary": 2}, {1, 2})
    {'stable': 2, 'canary': 2}

    Args:
        wanted: the labels that the folder of exports asks for.
        labels: those that the server has.
        available: the versions that it can answer with.
    """
    reachable = {label: wanted[label] if wanted[label] in available else labels.get(label) for label in wanted}
    return {label: number for label, number in reachable.items() if number is not None and number in available}


def next_served(wanted: Mapping[str, int], before: Served, available: Collection[int] | None) -> Served:
    """Return what to tell a server next, one step of the hand-over from `before` to `wanted`.

    >>> first = next_served({"canary": 3}, Served(frozenset({2}), {"canary": 2}), {2})
    >>> second = next_served({"canary": 3}, first, {2, 3})
    >>> third = next_served({"canary": 3}, second, {2, 3})
    >>> [(sorted(step.versions), dict(step.labels)) for step in (first, second, third)]
    [([2, 3], {'canary': 2}), ([2, 3], {'canary': 3}), ([3], {'canary': 3})]

    Args:
        wanted: the labels that the folder of exports asks for, and so the versions.
        before: what the server was told last.
        available: the versions that it can answer with; None: it does not say.
    """
    if available is None:
        return Served(before.versions | frozenset(wanted.values()), before.labels)
    labels = allowed_labels(wanted, before.labels, available)
    # What a label names until the server has read this configuration stays as well; and as long as none of the wanted
    # versions can answer, so does everything that can.
    needed = {*wanted.values(), *labels.values(), *before.labels.values()}
    if not needed & set(available):
        needed |= before.versions & set(available)
    return Served(frozenset(needed), labels)
