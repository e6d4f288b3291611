"""TensorFlow Serving: how it is configured and started, its client, and an embedded server for development."""
