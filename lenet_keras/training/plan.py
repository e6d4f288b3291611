"""What the chief decided, from its run folder, that all workers do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from lenet_keras.checkpoint import TrainingState, decode, encode
from lenet_keras.distribution.workers import Workers

Step = Literal["begin", "resume", "nothing"]


@dataclass(frozen=True)
class Plan:
    """How a call of `train` goes on.

    Attributes:
        step: "nothing" if the run is finished.
        state: what to resume from; None: nothing was written yet.
        metrics: a finished run's.
    """

    step: Step
    state: TrainingState | None = None
    metrics: dict[str, Any] | None = None


def agreed(plan: Plan | None, workers: Workers) -> Plan:
    """The chief's plan; the others, who have none, pass None."""
    if plan is not None and workers.count == 1:
        return plan
    content = b""
    if plan is not None:
        head = json.dumps({"step": plan.step, "metrics": plan.metrics}).encode()
        content = head + b"\n" + (encode(plan.state) if plan.state else b"")
    head, _, state = workers.from_chief(content).partition(b"\n")
    return Plan(**json.loads(head), state=decode(state, "the chief's state") if state else None)
