"""Counts of requests, in Prometheus's text format, under the names that TensorFlow Serving gives them.

The names, labels and buckets are those of tensorflow_serving/servables/tensorflow/util.cc, written as
tensorflow_serving/util/prometheus_exporter.cc writes them.
"""

from __future__ import annotations

import bisect
import threading
from collections import Counter

PATH = "/monitoring/prometheus/metrics"
# Microseconds: 33 buckets from 10, each 1.8 times as wide as the one before; the last one has no end.
_BOUNDS = [10 * 1.8**index for index in range(32)]


class Metrics:
    """The counts since the server was started, from any thread."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._latencies: dict[tuple[str, str, str], list[int]] = {}
        self._sums: Counter[tuple[str, str, str]] = Counter()

    def record(self, model: str, status: str, api: str, entrypoint: str, seconds: float) -> None:
        """Count a request that has been answered.

        Args:
            model: the name of a model that is or was served. Names that clients make up would fill the memory.
            status: the name of a gRPC status code; only requests that are OK count for the latency.
            api: "predict" or "Predict".
            entrypoint: "REST" or "GRPC".
            seconds: how long it took.
        """
        key = model, api, entrypoint
        with self._lock:
            self._counts[model, status] += 1
            if status == "OK":
                micros = seconds * 1e6
                buckets = self._latencies.setdefault(key, [0] * (len(_BOUNDS) + 1))
                buckets[bisect.bisect_right(_BOUNDS, micros)] += 1
                self._sums[key] += round(micros)

    def page(self) -> str:
        """Return the page that Prometheus reads.

        >>> metrics = Metrics()
        >>> metrics.record("lenet5_none", "OK", "predict", "REST", 0.002)
        >>> print(metrics.page().splitlines()[1])
        :tensorflow:serving:request_count{model_name="lenet5_none",status="OK"} 1
        """
        lines = ["# TYPE :tensorflow:serving:request_count counter"]
        with self._lock:
            for (model, status), count in sorted(self._counts.items()):
                lines.append(
                    f':tensorflow:serving:request_count{{model_name="{_escaped(model)}",status="{status}"}} {count}'
                )
            lines.append("# TYPE :tensorflow:serving:request_latency histogram")
            for (model, api, entrypoint), buckets in sorted(self._latencies.items()):
                labels = f'model_name="{_escaped(model)}",API="{api}",entrypoint="{entrypoint}"'
                below = 0
                for bound, count in zip([*(f"{bound:g}" for bound in _BOUNDS), "+Inf"], buckets, strict=True):
                    below += count
                    lines.append(f':tensorflow:serving:request_latency_bucket{{{labels},le="{bound}"}} {below}')
                total = self._sums[model, api, entrypoint]
                lines.append(f":tensorflow:serving:request_latency_sum{{{labels}}} {total}")
                lines.append(f":tensorflow:serving:request_latency_count{{{labels}}} {below}")
        return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
