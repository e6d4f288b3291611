"""The two kinds of failure that a caller can act on. Both carry one line: what was wrong and what to do."""


class LenetKerasError(Exception):
    """The request was sound but could not be carried out: a missing file, a damaged run, an unreachable site."""


class InvalidArgument(LenetKerasError, ValueError):
    """The request itself was wrong: a name that does not exist, a number out of range."""


def first_line(error: BaseException) -> str:
    """What `error` says, in one line: the first of its message, or its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
