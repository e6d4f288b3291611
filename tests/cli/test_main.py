"""What becomes of an error, whichever command it ends."""

import errno
import os

import pytest
from click.testing import CliRunner

from lenet_keras.errors import InvalidArgument, LenetKerasError
from lenet_keras_cli.main import main
from lenet_keras_cli.models import command


@pytest.mark.parametrize(
    ("error", "code", "last_line"),
    [
        (InvalidArgument("epochs must be 1 or more. Received: 0"), 2, "Error: epochs must be 1 or more. Received: 0"),
        (LenetKerasError("no data set"), 1, "Error: no data set"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a"), 1, "Error: runs/a: No space left on device"),
        (InvalidArgument("a\nb \x1b[2J\udcff"), 2, "Error: a\\nb \\x1b[2J\\udcff"),
        (LenetKerasError("a\r"), 1, "Error: a\\r"),
        (OSError(errno.EIO, "bad", "a\u2028b"), 1, "Error: a\\u2028b: bad"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_an_error_is_one_line_and_a_code(error, code, last_line, monkeypatch):
    def fail(**_):
        raise error

    monkeypatch.setattr(command, "callback", fail)
    result = CliRunner().invoke(main, ["models"])
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1] == last_line
    assert result.stdout == ""


def test_an_error_in_the_program_is_not_hidden(monkeypatch):
    def fail(**_):
        raise ValueError("a bug")

    monkeypatch.setattr(command, "callback", fail)
    assert isinstance(CliRunner().invoke(main, ["models"]).exception, ValueError)
