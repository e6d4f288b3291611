"""The factory: shapes, parameters, where each regularisation is applied, and what is rejected."""

import keras
import numpy as np
import pytest

from lenet_keras.models import build_lenet5, layer_rows

# Weights and biases by LeCun et al. 1998, with full connections between s2 and c3.
PARAMETERS = {"c1": 25 * 6 + 6, "c3": 150 * 16 + 16, "c5": 400 * 120 + 120, "f6": 120 * 84 + 84, "logits": 84 * 10 + 10}


@pytest.fixture(scope="module")
def variants():
    return {reg: build_lenet5(reg, seed=0) for reg in ("none", "dropout", "batch_norm", "weight_decay")}


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1)).astype("float32")


def kernels(model):
    return [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]


@pytest.mark.parametrize("reg", ["none", "dropout", "weight_decay"])
def test_every_layer_has_its_parameters(variants, reg):
    rows = {row.name: row.parameters for row in layer_rows(variants[reg]) if row.parameters}
    assert rows == PARAMETERS
    assert variants[reg].count_params() == 61_706


def test_shapes_from_pixels_to_logits(variants):
    shapes = {row.name: row.output_shape for row in layer_rows(variants["none"])}
    assert shapes["c1"] == (28, 28, 6)
    assert shapes["s2"] == (14, 14, 6)
    assert shapes["c3"] == (10, 10, 16)
    assert shapes["s4"] == (5, 5, 16)
    assert (shapes["c5"], shapes["f6"], shapes["logits"]) == ((120,), (84,), (10,))


def test_larger_images_are_convolved_without_padding():
    model = build_lenet5(input_shape=(32, 32, 1))
    assert model.get_layer("c1").output.shape[1:] == (28, 28, 6)
    assert model.count_params() == 61_706


def test_other_classes_and_channels():
    model = build_lenet5(num_classes=47, input_shape=(28, 28, 3))
    assert model.output_shape == (None, 47)
    assert model.input_shape == (None, 28, 28, 3)


def test_pixels_are_scaled_in_the_model(variants, images):
    scaled = keras.Model(variants["none"].input, variants["none"].get_layer("scale").output)(images)
    np.testing.assert_allclose(scaled, images / 255, rtol=1e-6)


def test_outputs_are_logits(variants, images):
    logits = np.array(variants["none"](images))
    assert not np.allclose(logits.sum(axis=-1), 1)
    assert (logits < 0).any()


def test_dropout_follows_the_hidden_dense_layers_and_acts_in_training_only(variants, images):
    model = variants["dropout"]
    dropped = {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
    assert dropped == {"c5_dropout": 0.25, "f6_dropout": 0.25}
    np.testing.assert_array_equal(model(images), model(images))
    assert not np.array_equal(model(images, training=True), model(images, training=True))


def test_batch_normalisation_follows_convolutions_and_hidden_dense_layers(variants):
    model = variants["batch_norm"]
    names = [layer.name for layer in model.layers]
    for layer in ("c1", "c3", "c5", "f6"):
        assert names[names.index(layer) + 1] == f"{layer}_norm"
        assert not model.get_layer(layer).use_bias
    assert "logits_norm" not in names


def test_weight_decay_applies_to_every_kernel_and_nothing_else():
    model = build_lenet5("weight_decay+batch_norm", weight_decay=0.02)
    expected = sum(0.01 * float(np.square(kernel.numpy()).sum()) for kernel in kernels(model))
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    assert len(model.losses) == len(kernels(model)) == 5


def test_without_weight_decay_there_is_no_penalty(variants):
    assert [reg for reg, model in variants.items() if model.losses] == ["weight_decay"]


@pytest.mark.parametrize("layers", ["conv", "dense", "all"])
def test_dropout_and_normalisation_sit_where_they_are_told_to(layers):
    model = build_lenet5("dropout+batch_norm", dropout_layers=layers, batch_norm_layers=layers)
    names = {layer.name for layer in model.layers}
    kinds = {"conv": layers in ("conv", "all"), "dense": layers in ("dense", "all")}
    for kind, after_weights, after_activation in (
        ("conv", ("c1", "c3"), ("s2", "s4")),
        ("dense", ("c5", "f6"), ("c5", "f6")),
    ):
        assert [f"{name}_norm" in names for name in after_weights] == [kinds[kind]] * 2
        assert [f"{name}_dropout" in names for name in after_activation] == [kinds[kind]] * 2
        assert [model.get_layer(name).use_bias for name in after_weights] == [not kinds[kind]] * 2


def test_regularisations_combine_whatever_the_spelling():
    model = build_lenet5(["weight_decay", "dropout"])
    assert len(model.losses) == 5
    assert model.get_layer("f6_dropout")


def test_an_activation_after_max_pooling_equals_one_before_it(variants, images):
    model = variants["none"]
    convolved = keras.Model(model.input, model.get_layer("c1").output)(images)
    usual = keras.layers.MaxPooling2D(2)(keras.ops.relu(convolved))
    np.testing.assert_array_equal(keras.Model(model.input, model.get_layer("s2_relu").output)(images), usual)


@pytest.mark.parametrize(
    ("pooling", "pooled", "reduce"),
    [("max", "c1", np.max), ("average", "c1_relu", np.mean)],  # an average of activations is no activation of averages
)
def test_pooling(pooling, pooled, reduce, images):
    model = build_lenet5(pooling=pooling, seed=0)
    before, after = (
        np.array(keras.Model(model.input, model.get_layer(name).output)(images)) for name in (pooled, "s2")
    )
    np.testing.assert_allclose(after, reduce(before.reshape(4, 14, 2, 14, 2, 6), axis=(2, 4)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "layer", "function"),
    [
        ("relu", "f6_relu", lambda x: np.maximum(x, 0)),
        ("tanh", "f6_tanh", np.tanh),
        ("scaled_tanh", "f6_amplitude", lambda x: 1.7159 * np.tanh(2 / 3 * x)),
        ("sigmoid", "f6_sigmoid", lambda x: 1 / (1 + np.exp(-x))),
    ],
)
def test_activations(activation, layer, function, images):
    model = build_lenet5(activation=activation, seed=0)
    before, after = (np.array(keras.Model(model.input, model.get_layer(name).output)(images)) for name in ("f6", layer))
    np.testing.assert_allclose(after, function(before), rtol=1e-5, atol=1e-6)


def test_a_seed_gives_the_same_weights_and_masks(images):
    first, again, other = (build_lenet5("dropout", seed=seed) for seed in (3, 3, 4))
    for a, b, c in zip(kernels(first), kernels(again), kernels(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    np.testing.assert_array_equal(first(images, training=True), again(images, training=True))


def test_a_layer_starts_with_the_same_kernel_in_every_variant():
    # Paired comparisons of variants stand on it.
    regs = ["none", "dropout", "batch_norm", "weight_decay", "dropout+batch_norm+weight_decay"]
    models = [build_lenet5(reg, seed=3) for reg in regs]
    models += [build_lenet5("dropout", seed=3, activation="scaled_tanh", pooling="average", dropout_rate=0.5)]
    for layer in PARAMETERS:
        first, *others = (model.get_layer(layer).kernel.numpy() for model in models)
        for other in others:
            np.testing.assert_array_equal(first, other)


def test_every_random_layer_and_every_seed_has_its_own_values():
    seeds = []
    for root in (0, 1, 2**32, 2**63 - 1):
        model = build_lenet5("dropout", seed=root)
        seeds += [model.get_layer(layer).kernel_initializer.seed for layer in PARAMETERS]
        seeds += [model.get_layer(layer).seed for layer in ("c5_dropout", "f6_dropout")]
    assert len(set(seeds)) == len(seeds) == 4 * 7


VARIANT = {"reg": "dropout+batch_norm+weight_decay", "seed": 0}
OTHERS = [{"activation": "scaled_tanh", "pooling": "average"}, {"activation": "relu", "pooling": "max"}]


@pytest.fixture(scope="module")
def undisturbed():
    """Configuration, weights and logits of two variants, built before anything is set globally."""
    pixels = np.random.default_rng(1).integers(0, 256, (2, 28, 28, 1)).astype("float32")
    models = [build_lenet5(**VARIANT, **other) for other in OTHERS]
    return pixels, [(model.get_config(), model.get_weights(), np.array(model(pixels))) for model in models]


def test_the_model_is_the_same_whatever_is_set_globally(undisturbed, foreign_globals):
    pixels, expected = undisturbed
    for other, (config, weights, logits) in zip(OTHERS, expected, strict=True):
        model = build_lenet5(**VARIANT, **other)
        assert model.get_config() == config
        assert {each.dtype_policy.name for each in (model, *model.layers)} == {"float32"}
        for found, value in zip([*model.get_weights(), np.array(model(pixels))], [*weights, logits], strict=True):
            assert found.dtype == value.dtype
            np.testing.assert_array_equal(found, value)


def test_without_a_seed_weights_differ():
    first, second = build_lenet5(), build_lenet5()
    assert not np.array_equal(kernels(first)[0], kernels(second)[0])


def test_a_saved_model_loads_without_this_package(tmp_path, images):
    model = build_lenet5("dropout+batch_norm+weight_decay", activation="scaled_tanh")
    model.save(tmp_path / "model.keras")
    modules = {type(layer).__module__.split(".")[0] for layer in model.layers}
    assert modules == {"keras"}
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(images), model(images))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"reg": "l1"}, ["'l1'", "batch_norm"]),
        ({"reg": []}, ["[]", "weight_decay"]),
        ({"reg": "none+dropout"}, ["'none+dropout'"]),
        ({"dropout_rate": 1.0}, ["1.0", "[0, 1)"]),
        ({"dropout_rate": float("nan")}, ["nan"]),
        ({"weight_decay": -0.1}, ["-0.1", "0 or more"]),
        ({"activation": "gelu"}, ["'gelu'", "scaled_tanh"]),
        ({"pooling": "min"}, ["'min'", "average"]),
        ({"num_classes": 1}, ["1", "2 or more"]),
        ({"num_classes": 10.5}, ["10.5", "2 or more"]),
        ({"seed": -1}, ["-1", "0 or more"]),
        ({"input_shape": (11, 28, 1)}, ["(11, 28, 1)", "12"]),
        ({"input_shape": (28, 28)}, ["(28, 28)"]),
    ],
)
def test_what_is_rejected_is_named_with_what_is_allowed(arguments, names):
    with pytest.raises(ValueError, match="Received") as refused:
        build_lenet5(**arguments)
    for name in names:
        assert name in str(refused.value)


def test_the_smallest_image_works():
    assert build_lenet5(input_shape=(12, 12, 1)).get_layer("s4").output.shape[1:] == (1, 1, 16)


def test_numbers_of_numpy_are_taken():
    model = build_lenet5("dropout", np.int64(5), dropout_rate=np.float32(0.5), seed=np.uint8(3))
    assert model.output_shape == (None, 5)
    assert keras.models.model_from_json(model.to_json()).get_layer("f6_dropout").rate == 0.5
