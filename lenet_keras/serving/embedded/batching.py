"""Batching: concurrent requests for one signature are answered by one call of the model.

No request waits for others to arrive: whenever the worker is free, it takes the requests that have gathered while it
was busy. A lone request is answered at once, and batches grow with the load. Requests that are a batch in themselves
have a worker of their own, so that whoever asks for much waits for others who do, and nobody else does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from grpc import StatusCode

from lenet_keras.serving.embedded.signatures import Arrays, ServingError, Signature

Outputs = dict[str, npt.NDArray[Any]]

_PIXELS = 2**16  # whose decoding takes about as long as a row in the model
_LARGE = "large"  # the group of requests that are not merged because of what they weigh


@dataclass(frozen=True, eq=False)
class _Request:
    signature: Signature
    inputs: Arrays
    rows: int
    weight: int
    answer: Future[Outputs] = field(default_factory=Future)


class Batcher:
    """Runs requests on two threads of its own, several in one call where they fit together.

    Requests fit together if they are for the same loaded signature and their inputs differ in nothing but the batch.
    The last digits of a row's answer can depend on the number of rows in the call.
    """

    def __init__(self, max_batch: int = 64, max_waiting: int = 1000) -> None:
        """Start the threads.

        Args:
            max_batch: the most rows to merge, or so many times 65,536 pixels to decode; a larger request runs alone.
            max_waiting: the most requests that may wait; further ones are refused.
        """
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._groups: OrderedDict[Hashable, deque[_Request]] = OrderedDict()
        self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, args=(takes_large,), name="batcher") for takes_large in (False, True)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, signature: Signature, inputs: Arrays, pixels: int = 0) -> Future[Outputs]:
        """Queue a request, whose inputs `Signature.check` has accepted.

        Args:
            signature: what to call.
            inputs: its arguments.
            pixels: how many the call decodes.

        Raises:
            ServingError: RESOURCE_EXHAUSTED: too many requests are waiting. UNAVAILABLE: the server is stopping.
        """
        rows = {array.shape[0] for array in inputs.values()} if signature.is_batched else set()
        # Some operations refuse an empty batch: what happens to one must not depend on other requests.
        can_merge = len(rows) == 1 and rows != {0}
        count = max(rows, default=1)
        request = _Request(signature, inputs, count, max(count, pixels // _PIXELS))
        group: Hashable = object()
        if request.weight > self._max_batch:
            group = _LARGE
        elif can_merge:
            group = (id(signature), *(inputs[name].shape[1:] for name in signature.inputs))
        with self._changed:
            if self._closed:
                raise ServingError(StatusCode.UNAVAILABLE, "the server is shutting down; try again later")
            if self._waiting >= self._max_waiting:
                raise ServingError(
                    StatusCode.RESOURCE_EXHAUSTED, f"{self._waiting} requests are waiting; try again later"
                )
            self._groups.setdefault(group, deque()).append(request)
            self._waiting += 1
            self._changed.notify_all()
        request.answer.add_done_callback(lambda answer: self._forget(group, answer) if answer.cancelled() else None)
        return request.answer

    def close(self) -> None:
        """Answer what was submitted, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _forget(self, group: Hashable, answer: Future[Outputs]) -> None:
        # Nobody waits for it any more: the request must not keep its inputs, and the place of another.
        with self._changed:
            requests = self._groups.get(group, deque())
            for request in [request for request in requests if request.answer is answer]:
                requests.remove(request)
                self._waiting -= 1
            if not requests:
                self._groups.pop(group, None)

    def _work(self, takes_large: bool) -> None:
        while True:
            with self._changed:
                while (group := self._next_group(takes_large)) is None and not self._closed:
                    self._changed.wait()
                if group is None:
                    return
                batch = self._take(group)
            _answer([request for request in batch if request.answer.set_running_or_notify_cancel()])
            del batch  # the signature, and with it an unloaded version, must not live until the next request

    def _next_group(self, is_large: bool) -> Hashable | None:
        return next((group for group in self._groups if (group is _LARGE) == is_large), None)

    def _take(self, group: Hashable) -> list[_Request]:
        requests = self._groups[group]
        batch = [requests.popleft()]
        weight = batch[0].weight
        while requests and weight + requests[0].weight <= self._max_batch:
            weight += requests[0].weight
            batch.append(requests.popleft())
        if requests:
            self._groups.move_to_end(group)  # so that no group starves behind a busy one
        else:
            del self._groups[group]
        self._waiting -= len(batch)
        return batch


def _answer(batch: list[_Request]) -> None:
    if len(batch) > 1:
        try:
            answers = _run_merged(batch)
        except Exception:  # one of them may be at fault: each gets what it would have got alone
            pass
        else:
            for request, answer in zip(batch, answers, strict=True):
                request.answer.set_result(answer)
            return
    for request in batch:
        try:
            outputs = request.signature.run(request.inputs)
        except Exception as error:
            request.answer.set_exception(error)
        else:
            request.answer.set_result(outputs)


def _run_merged(batch: list[_Request]) -> list[Outputs]:
    signature = batch[0].signature
    merged = {name: np.concatenate([request.inputs[name] for request in batch]) for name in signature.inputs}
    ends = np.cumsum([request.rows for request in batch])
    outputs = signature.run(merged)
    if any(len(array) != ends[-1] for array in outputs.values()):
        raise ValueError("the outputs do not have one row for each row of the inputs")
    parts = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}
    return [{name: parts[name][index] for name in outputs} for index in range(len(batch))]
