"""A stand-in for TensorFlow Serving's ServerCore: when it accepts a configuration, and what it then loads and unloads.

The rules are those of tensorflow_serving/model_servers/server_core.cc (`ReloadConfig`, `UpdateModelVersionLabelMap`,
without `allow_version_labels_for_unavailable_models`) and of core/availability_preserving_policy.cc, at 2.20.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ServerCore:
    """Attributes: `states` of versions by model and number, `labels` by model, and the labels that were `refused`."""

    def __init__(self, can_load: Callable[[str, int], bool]) -> None:
        self.states: dict[str, dict[int, str]] = {}
        self.labels: dict[str, dict[str, int]] = {}
        self.refused: list[tuple[str, str, int]] = []
        self._aspired: dict[str, set[int]] = {}
        self._can_load = can_load

    def reload(self, config: Any) -> None:
        """Take a ModelServerConfig: first its labels, all or none; if they are refused, nothing else of it."""
        labels: dict[str, dict[str, int]] = {}
        for model in config.model_config_list.config:
            for label, number in model.version_labels.items():
                if number not in self.available(model.name):
                    self.refused.append((model.name, label, number))
                    return
                labels.setdefault(model.name, {})[label] = number
        self.labels = labels
        self._aspired = {
            model.name: set(model.model_version_policy.specific.versions) for model in config.model_config_list.config
        }

    def work(self) -> None:
        """Do one thing for each model: unload a version that is not wanted and not the last to answer, or load one."""
        for model in self.states.keys() | self._aspired.keys():
            states, aspired = self.states.setdefault(model, {}), self._aspired.get(model, set())
            available = self.available(model)
            if (left := available - aspired) and (available & aspired or not aspired):
                states[min(left)] = "END"
            elif new := sorted(number for number in aspired if states.get(number) != "AVAILABLE"):
                for number in new:
                    if self._can_load(model, number):
                        states[number] = "AVAILABLE"
                        break
                    states[number] = "END"

    def available(self, model: str) -> set[int]:
        """Return the versions that can answer."""
        return {number for number, state in self.states.get(model, {}).items() if state == "AVAILABLE"}
