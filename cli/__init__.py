"""The command line of lenet-keras, one module per command. Installed as `lenet_keras_cli`."""
