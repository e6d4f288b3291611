"""The process `lenet-keras`, or `python -m lenet_keras_cli`: from its start it can be asked to stop, on any streams."""

from __future__ import annotations

import gc
import sys

from .interruption import interruption


def main() -> None:
    """Run the command, and exit with its code."""
    try:
        try:
            interruption.handle_signals()  # before imports that take a while
            from . import streams

            streams.prepare()
            from .main import main as command

            command(prog_name="lenet-keras")  # Click would call it "python -m lenet_keras"
        finally:
            interruption.arrive()
    except BaseException as error:
        interruption.arrive()
        gc.freeze()  # or the interpreter's last collection takes most of a second when TensorFlow is loaded
        code = error.code if isinstance(error, SystemExit) else None
        if interruption.is_requested:
            if code != interruption.exit_code:
                sys.stderr.write("Interrupted.\n")
            sys.exit(interruption.exit_code)
        if not isinstance(error, SystemExit):
            raise
        lost = streams.output_error()
        if lost and not code:
            if not isinstance(lost, BrokenPipeError):  # the reader of a pipe has seen enough
                sys.stderr.write(f"Error: the results could not be written to stdout: {lost.strerror}\n")
            sys.exit(1)
        sys.exit(code)


if __name__ == "__main__":
    sys.argv[0] = "lenet-keras"  # as it is displayed and recorded in config.json
    main()
