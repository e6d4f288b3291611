"""Where a training runs: one device, several, or several machines, each as a tf.distribute strategy.

Importing this package loads no TensorFlow; `placement` and `workers` do.
"""
