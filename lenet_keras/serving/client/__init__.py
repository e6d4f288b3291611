"""Asking a TensorFlow Serving endpoint, over REST or gRPC, with one class for both."""

from lenet_keras.serving.client.client import Answer, ServingClient

__all__ = ["Answer", "ServingClient"]
