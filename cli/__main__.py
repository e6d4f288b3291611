"""`python -m lenet_keras_cli`: the command `lenet-keras`."""

import sys

from .main import main

sys.argv[0] = "lenet-keras"  # as it is displayed and recorded in config.json
main()
