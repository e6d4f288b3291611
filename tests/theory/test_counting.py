"""Shapes and numbers of parameters: the report's answers, and Keras's layers as an independent count."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from lenet_keras import InvalidArgument
from lenet_keras.theory import conv2d_parameters, dense_parameters, mlp_shapes


def dense_stack(layer_sizes, **settings):
    layers = [keras.layers.Dense(units, **settings) for units in layer_sizes[1:]]
    return keras.Sequential([keras.Input((layer_sizes[0],)), *layers])


def test_the_shapes_of_the_report():
    assert list(mlp_shapes((10, 50, 3), batch=32).items()) == [
        ("X", (32, 10)),
        ("W_h", (10, 50)),
        ("b_h", (50,)),
        ("W_o", (50, 3)),
        ("b_o", (3,)),
        ("Y", (32, 3)),
    ]


@pytest.mark.parametrize(
    ("layer_sizes", "weights"),
    [
        ((7, 2), ["W_o", "b_o"]),
        ((7, 5, 2), ["W_h", "b_h", "W_o", "b_o"]),
        ((7, 5, 1, 2), ["W_h1", "b_h1", "W_h2", "b_h2", "W_o", "b_o"]),
    ],
)
def test_shapes_are_those_of_dense_layers(layer_sizes, weights):
    shapes = mlp_shapes(layer_sizes, batch=4)
    assert list(shapes) == ["X", *weights, "Y"]
    model = dense_stack(layer_sizes)
    assert [shapes[name] for name in weights] == [tuple(weight.shape) for weight in model.weights]
    assert tuple(model(keras.ops.zeros(shapes["X"])).shape) == shapes["Y"]


@pytest.mark.parametrize("bias", [True, False])
def test_parameters_of_dense_layers_are_those_of_keras(bias):
    model = dense_stack((400, 120, 84, 10), use_bias=bias)
    assert dense_parameters((400, 120, 84, 10), bias) == [layer.count_params() for layer in model.layers]


def test_the_parameters_of_the_report():
    assert conv2d_parameters((3, 100, 200, 400), 3) == [2_800, 180_200, 720_400]
    assert sum(conv2d_parameters((3, 100, 200, 400), 3)) == 903_400


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3, (2, 5), [4, 1]])
def test_parameters_of_convolutions_are_those_of_keras(kernel_size, bias):
    model = keras.Sequential([keras.Input((None, None, 3))])
    for filters in (4, 1, 6):
        model.add(keras.layers.Conv2D(filters, kernel_size, use_bias=bias))
    assert conv2d_parameters((3, 4, 1, 6), kernel_size, bias) == [layer.count_params() for layer in model.layers]


@pytest.mark.parametrize(
    "call",
    [
        lambda: mlp_shapes((10,), 4),
        lambda: mlp_shapes((10, 0, 3), 4),
        lambda: mlp_shapes((10, 3), 0),
        lambda: dense_parameters(()),
        lambda: dense_parameters((2.5, 3)),
        lambda: conv2d_parameters((3,), 3),
        lambda: conv2d_parameters((3, -1), 3),
        lambda: conv2d_parameters((3, 4), 0),
        lambda: conv2d_parameters((3, 4), 3.0),
        lambda: conv2d_parameters((3, 4), (3, 3, 3)),
    ],
)
def test_what_is_no_network_is_rejected(call):
    with pytest.raises(InvalidArgument, match="Received"):
        call()


def test_numpys_integers_are_numbers():
    three, four = np.int64(3), np.int32(4)
    assert conv2d_parameters((three, four), three) == conv2d_parameters((3, 4), 3)
    assert dense_parameters((three, four)) == [16]
    assert mlp_shapes((three, four), three) == mlp_shapes((3, 4), 3)


def test_importing_the_theory_loads_neither_tensorflow_nor_keras():
    program = "import sys, lenet_keras.theory; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
