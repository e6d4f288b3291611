"""TensorFlow Serving: its configuration, its client, and an embedded server for where there is none."""
