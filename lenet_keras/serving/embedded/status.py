"""Why a request was refused: a gRPC status code, its HTTP counterpart and one line of text."""

from __future__ import annotations

import re

import grpc

from lenet_keras.errors import LenetKerasError, first_line

Code = grpc.StatusCode

_HTTP = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
_BY_NUMBER = {code.value[0]: code for code in Code}


class ServingError(LenetKerasError):
    """A request that cannot be answered, or a version that cannot be loaded.

    Attributes:
        code: the gRPC status code.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def http_status(self) -> int:
        """The HTTP status that TensorFlow Serving answers with for this code."""
        return _HTTP.get(self.code, 500)


def invalid(message: str) -> ServingError:
    """Make the error of a request that is wrong in itself."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def from_exception(error: Exception) -> ServingError:
    """Make the error that tells a client of `error`, in one line; TensorFlow's errors keep their code."""
    if isinstance(error, ServingError):
        return error
    number = getattr(error, "error_code", None)  # of tf.errors.OpError
    # Where a graph fails, TensorFlow tells of its nodes first; the cause is the line above the node in brackets.
    cause = re.search(r"^(.+)\n\s*\[\[\{\{node", str(error), re.MULTILINE)
    return ServingError(_BY_NUMBER.get(number, Code.INTERNAL), cause[1].strip() if cause else first_line(error))
