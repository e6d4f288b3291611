"""Where training runs: on one device, several devices, or several machines, each as a tf.distribute strategy."""
