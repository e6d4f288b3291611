"""A development server inside Python that answers TensorFlow Serving's REST and gRPC requests for an export folder."""
