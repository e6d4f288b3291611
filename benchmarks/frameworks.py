"""The same training in PyTorch and in JAX, for `training_speed.py`: images per second in this process.

Both get what makes them fast on a CPU: all images in memory as uint8, whole batches gathered by index, a fused Adam in
PyTorch, one jitted step with donated arguments in JAX. Layers, order, loss, settings of Adam and of the
regularisations are those of `build_lenet5`; initial weights, on which no speed depends, are drawn as is usual in each.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from lenet_keras import TrainConfig
from lenet_keras.data.load import load

WARM_UP_STEPS = 100
WEIGHTED = ("c1", "c3", "c5", "f6", "logits")


def torch_speed(config: TrainConfig, steps: int, threads: int, is_compiled: bool) -> float:
    """Return images per second of PyTorch with the faster of its two layouts of images in memory."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    data = load(config.dataset).train
    pixels, labels = torch.from_numpy(data.images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(data.labels)
    has = config.reg.split("+")

    def hidden(layer: nn.Module, units: int) -> list[nn.Module]:
        norm = [nn.BatchNorm1d(units)] if "batch_norm" in has else []  # momentum 0.1 here is 0.9 in Keras
        dropout = [nn.Dropout(config.dropout_rate)] if "dropout" in has else []
        return [layer, *norm, nn.ReLU(), *dropout]

    def convolution(channels: int, filters: int, padding: int) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(filters)] if "batch_norm" in has else []
        layer = nn.Conv2d(channels, filters, 5, padding=padding, bias=not norm)
        return [layer, *norm, nn.MaxPool2d(2), nn.ReLU()]

    def speed(layout: torch.memory_format, steps: int) -> float:
        bias = "batch_norm" not in has
        model = nn.Sequential(
            *convolution(1, 6, 2), *convolution(6, 16, 0), nn.Flatten(),
            *hidden(nn.Linear(400, 120, bias), 120), *hidden(nn.Linear(120, 84, bias), 84), nn.Linear(84, 10),
        ).to(memory_format=layout)  # fmt: skip
        kernels = [weights for weights in model.parameters() if weights.ndim > 1]
        others = [weights for weights in model.parameters() if weights.ndim <= 1]
        decay = config.weight_decay if "weight_decay" in has else 0.0
        optimizer = torch.optim.Adam(
            [{"params": kernels, "weight_decay": decay}, {"params": others}], config.learning_rate, eps=1e-7, fused=True
        )

        def losses(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(model(images), labels)

        forward = torch.compile(losses) if is_compiled else losses

        def step(chosen: torch.Tensor) -> None:
            images = (pixels[chosen].float() / 255).contiguous(memory_format=layout)
            optimizer.zero_grad()
            forward(images, labels[chosen]).backward()
            optimizer.step()

        return _timed(lambda indices: step(torch.from_numpy(indices)), steps, config.batch_size, len(labels))

    layouts = (torch.contiguous_format, torch.channels_last)
    best = max(layouts, key=lambda layout: speed(layout, WARM_UP_STEPS))
    return speed(best, steps)


def jax_speed(config: TrainConfig, steps: int) -> float:
    """Return images per second of JAX and Optax."""
    import jax
    import optax
    from jax import numpy as jnp

    jax.config.update("jax_default_prng_impl", "rbg")  # far faster masks than by default
    data = load(config.dataset).train
    pixels, labels = jnp.asarray(data.images), jnp.asarray(data.labels)
    has = config.reg.split("+")
    shapes = ((5, 5, 1, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10))
    keys = jax.random.split(jax.random.key(0), len(shapes))
    glorot = jax.nn.initializers.glorot_uniform()
    weights = {
        name: {"kernel": glorot(key, shape), "bias": jnp.zeros(shape[-1]), "gamma": jnp.ones(shape[-1])}
        for name, key, shape in zip(WEIGHTED, keys, shapes, strict=True)
    }
    moving = {name: (jnp.zeros(shape[-1]), jnp.ones(shape[-1])) for name, shape in zip(WEIGHTED, shapes, strict=True)}
    adam = optax.adam(config.learning_rate, eps=1e-7)

    def logits(weights: Any, moving: Any, images: Any, key: Any) -> tuple[Any, Any]:
        moving = dict(moving)

        def shifted(x: Any, name: str) -> Any:  # by the bias, after a batch normalisation if there is one
            if "batch_norm" in has and name != "logits":
                axes = tuple(range(x.ndim - 1))
                mean, variance = x.mean(axes), x.var(axes)
                moving[name] = tuple(
                    0.9 * old + 0.1 * new for old, new in zip(moving[name], (mean, variance), strict=True)
                )
                x = (x - mean) * (weights[name]["gamma"] * jax.lax.rsqrt(variance + 1e-5))
            return x + weights[name]["bias"]

        x = images.astype(jnp.float32) / 255
        for name, padding in (("c1", "SAME"), ("c3", "VALID")):
            x = jax.lax.conv_general_dilated(
                x, weights[name]["kernel"], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = shifted(x, name)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            x = jax.nn.relu(x)
        x = x.reshape(len(images), -1)
        for name in ("c5", "f6"):
            x = jax.nn.relu(shifted(x @ weights[name]["kernel"], name))
            if "dropout" in has:
                key, used = jax.random.split(key)
                kept = jax.random.bernoulli(used, 1 - config.dropout_rate, x.shape)
                x = jnp.where(kept, x / (1 - config.dropout_rate), 0)
        return shifted(x @ weights["logits"]["kernel"], "logits"), moving

    def objective(weights: Any, moving: Any, images: Any, labels: Any, key: Any) -> tuple[Any, Any]:
        outputs, moving = logits(weights, moving, images, key)
        loss = optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()
        if "weight_decay" in has:
            loss += config.weight_decay / 2 * sum((each["kernel"] ** 2).sum() for each in weights.values())
        return loss, moving

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(weights: Any, moving: Any, state: Any, chosen: Any, key: Any) -> Any:
        gradients, moving = jax.grad(objective, has_aux=True)(weights, moving, pixels[chosen], labels[chosen], key)
        updates, state = adam.update(gradients, state)
        return optax.apply_updates(weights, updates), moving, state

    training = [weights, moving, adam.init(weights)]
    keys = iter(jax.random.split(jax.random.key(1), WARM_UP_STEPS + steps + 1))

    def train(chosen: npt.NDArray[np.int64]) -> None:
        training[:] = step(*training, chosen, next(keys))

    return _timed(train, steps, config.batch_size, len(labels), lambda: jax.block_until_ready(training))


def _timed(
    train: Callable[[npt.NDArray[np.int64]], None],
    steps: int,
    batch_size: int,
    size: int,
    finish: Callable[[], Any] = lambda: None,
) -> float:
    # Images per second of `steps` steps, each on a batch of shuffled indices, after the steps of warming up.
    order = np.random.default_rng(0).permutation(size)
    batches = [order[first : first + batch_size] for first in range(0, size - batch_size + 1, batch_size)]
    start = 0.0
    for number in range(-WARM_UP_STEPS, steps):
        if number == 0:
            finish()
            start = time.perf_counter()
        train(batches[number % len(batches)])
    finish()
    return steps * batch_size / (time.perf_counter() - start)
