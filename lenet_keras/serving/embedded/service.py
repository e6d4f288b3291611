"""What both interfaces of a server share: its models, what runs them, its limits, and its counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from lenet_keras.serving.embedded.batching import Batcher, Outputs
from lenet_keras.serving.embedded.budget import Budget, Holding
from lenet_keras.serving.embedded.limits import Limits
from lenet_keras.serving.embedded.metrics import Metrics
from lenet_keras.serving.embedded.signatures import Arrays, BadRequest, Signature
from lenet_keras.serving.embedded.store import ModelStore
from lenet_keras.serving.image_size import count_pixels


def event_loop_thread(name: str, run: Callable[[], Coroutine[Any, Any, None]], ready: Future[Any]) -> threading.Thread:
    """Return a thread, not started yet, that runs `run` in an event loop.

    Whoever waits for `ready`, which `run` sets, hears what was raised before; without that they would wait for ever.
    """

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    return threading.Thread(target=work, name=name)


@dataclass(frozen=True)
class Service:
    """What answers requests, by whichever interface they came.

    Attributes:
        store: the models.
        batcher: runs them.
        limits: what the server takes on.
        budget: the memory that the requests under way hold.
        metrics: the requests that were answered.
    """

    store: ModelStore
    batcher: Batcher
    limits: Limits
    budget: Budget
    metrics: Metrics = field(default_factory=Metrics)

    def submit(self, signature: Signature, inputs: Arrays, holding: Holding) -> Future[Outputs]:
        """Check a request against the limits and queue it; `holding` then also holds its arrays.

        Raises:
            ServingError: INVALID_ARGUMENT: it does not fit the signature, or is more than one request may ask for.
                RESOURCE_EXHAUSTED: the server has more to do already than it takes on.
        """
        signature.check(inputs)
        pixels = 0
        for name, array in inputs.items():
            if signature.is_batched and array.shape[0] > self.limits.images:
                raise too_many_rows(name, array.shape[0], self.limits)
            if signature.inputs[name].dtype == tf.string:
                pixels += sum(count_pixels(content) for content in array.ravel())
            else:
                holding.add(array.nbytes)
        most = self.limits.pixels
        if pixels > most:
            raise BadRequest(
                f"the images have {pixels} pixels together; a request may have {most}: send fewer at a time"
            )
        return self.batcher.submit(signature, inputs, pixels)

    def largest_sizes(self, signature: Signature) -> dict[str, int]:
        """Return the most values that an input may have, by its name, where the signature says it."""
        sizes = {}
        for name, spec in signature.inputs.items():
            row = spec.shape[1:].num_elements() if signature.is_batched else None
            if row is not None:
                sizes[name] = row * self.limits.images
        return sizes


def too_many_rows(name: str, count: int, limits: Limits) -> BadRequest:
    """Return the error that says so."""
    return BadRequest(f"input {name} has {count} rows; a request may have {limits.images}: send fewer at a time")
