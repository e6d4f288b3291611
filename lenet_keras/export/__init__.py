"""Exports: SavedModels for TensorFlow Serving and files for other runtimes, each checked before it is published."""
