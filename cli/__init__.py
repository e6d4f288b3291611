"""The command line of lenet-keras, one module a command. Installed as `lenet_keras_cli`."""
