"""The explanation of a model's layers, by Keras's counts, TensorFlow's profiler, and gradients by the image."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from lenet_keras import InvalidArgument, build_lenet5
from lenet_keras.theory import explain_layers
from lenet_keras_cli.main import main


@pytest.fixture(scope="module")
def variants():
    return {reg: build_lenet5(reg, seed=0) for reg in ("none", "dropout", "batch_norm", "weight_decay")}


@pytest.fixture(scope="module")
def coloured():
    """A variant for other images, of which the last pixels are seen by no unit after s4."""
    return build_lenet5("batch_norm", num_classes=7, input_shape=(33, 38, 3), pooling="average", activation="tanh")


def test_parameters_and_shapes_are_those_of_keras(variants, coloured):
    for model in (*variants.values(), coloured):
        costs = explain_layers(model)
        assert [cost.name for cost in costs] == [layer.name for layer in model.layers]
        assert [cost.parameters for cost in costs] == [layer.count_params() for layer in model.layers]
        assert sum(cost.parameters for cost in costs) == model.count_params()
        assert [(None, *cost.output_shape) for cost in costs] == [layer.output.shape for layer in model.layers]
        for cost, layer in zip(costs, model.layers, strict=True):
            assert cost.parameter_bytes == sum(weight.numpy().nbytes for weight in layer.weights)
            assert cost.output_bytes == np.zeros(layer.output.shape[1:], np.float32).nbytes


def test_parameters_are_a_sum_over_the_kernel_and_the_biases(variants):
    terms = {cost.name: cost.parameter_terms for cost in explain_layers(variants["none"])}
    assert terms["c3"] == ((5, 5, 6, 16), (16,))
    assert terms["c5"] == ((400, 120), (120,))
    assert terms["s2"] == ()


def profiled(model):
    """Multiply-adds of the layers by name, as TensorFlow's profiler counts them in the graph for one image."""
    graph = tf.function(model).get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:]))).graph
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    nodes, found = [tf.compat.v1.profiler.profile(graph, options=options)], {}
    while nodes:
        node = nodes.pop()
        nodes += node.children
        # With a kernel, a multiplication and an addition count as two; a normalisation's multiplication is one of two.
        match = re.fullmatch(r"\w+/(\w+?)(?:_\d+)?/(?:(convolution|MatMul)|batchnorm/mul_1)", node.name)
        if match:
            found[match[1]] = node.float_ops // (2 if match[2] else 1)
    return found


def test_multiply_adds_are_those_that_tensorflow_counts(variants, coloured):
    for model in (variants["none"], variants["batch_norm"], coloured):
        assert {cost.name: cost.multiply_adds for cost in explain_layers(model) if cost.multiply_adds} == profiled(
            model
        )


@pytest.mark.parametrize("input_shape", [(28, 28, 1), (33, 38, 3), (12, 19, 1)])
def test_receptive_fields_are_where_the_gradient_of_a_unit_is_not_zero(input_shape):
    # Averages and tanh, so that the gradient is zero at no pixel by chance.
    model = build_lenet5(input_shape=input_shape, pooling="average", activation="tanh", seed=0)
    image = tf.constant(np.random.default_rng(0).uniform(0, 255, (1, *input_shape)), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(image)
        outputs = keras.Model(model.input, [layer.output for layer in model.layers])(image)
        units = [tf.reduce_sum(output[(0, *(side // 2 for side in output.shape[1:-1]))]) for output in outputs]
    for cost, unit in zip(explain_layers(model), units, strict=True):
        if cost.name == "flatten":
            continue  # its units see as much as those of s4
        rows, columns, _ = np.nonzero(tape.gradient(unit, image)[0].numpy())
        assert cost.receptive_field == (np.ptp(rows) + 1, np.ptp(columns) + 1), cost.name


def test_other_layers_are_rejected():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.DepthwiseConv2D(3, name="depth")])
    with pytest.raises(InvalidArgument, match=r"DepthwiseConv2D are not explained\. Received: 'depth'"):
        explain_layers(model)


def test_the_command_shows_sums_that_are_right_and_a_total_in_a_hundred_columns():
    text = CliRunner().invoke(main, ["models", "batch_norm", "--explain"]).stdout
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert re.search(r"c3 +10x10x16 +6,400 +5 x 5 x 6 x 16 = 2,400 +9,600 +240,000 +14x14", text)
    assert re.search(r"total +73,400 +62,384 +249,536 +423,028", text)
    sums = re.findall(r"((?:\d+ [x+] )+\d+) = ([\d,]+)", text)
    assert len(sums) == 9
    for terms, value in sums:
        factors = [[int(factor) for factor in term.split(" x ")] for term in terms.split(" + ")]
        assert sum(map(math.prod, factors)) == int(value.replace(",", ""))


def test_without_a_variant_there_is_nothing_to_explain():
    result = CliRunner().invoke(main, ["models", "--explain"])
    assert result.exit_code == 2
    assert "--explain does nothing without REG" in result.stderr
