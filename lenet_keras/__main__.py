"""The command line, as `python -m lenet_keras`."""

import sys

from lenet_keras_cli.__main__ import main

sys.argv[0] = "lenet-keras"  # as it is displayed and recorded in config.json
main()
