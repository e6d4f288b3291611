"""The theory behind the models, executable: shapes, parameters, batch normalisation and its gradients.

docs/theory.md derives the formulas. This package knows NumPy only: importing it loads neither TensorFlow nor Keras, so
that TensorFlow can serve as an independent reference.
"""

from lenet_keras.theory.counting import conv2d_parameters, dense_parameters, mlp_shapes
from lenet_keras.theory.explanation import LayerCost, explain_layers
from lenet_keras.theory.normalisation import (
    BatchNormGradients,
    InputGradientFactors,
    batch_norm,
    batch_norm_gradients,
    input_gradient_factors,
)

__all__ = [
    "BatchNormGradients",
    "InputGradientFactors",
    "LayerCost",
    "batch_norm",
    "batch_norm_gradients",
    "conv2d_parameters",
    "dense_parameters",
    "explain_layers",
    "input_gradient_factors",
    "mlp_shapes",
]
