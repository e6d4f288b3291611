"""Adam with one operation for each variable, to the values of Keras's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from lenet_keras.backend import keras

# What the operation computes; any other setting than the default is left to Keras.
_COMPUTED = {"name", "learning_rate", "beta_1", "beta_2", "epsilon"}


def gradient_step(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable], replicas: int = 1
) -> Callable[[Sequence[tf.Tensor]], None]:
    """Return a function that takes gradients and does what `optimizer.apply` does.

    Keras makes 35 small operations for each variable of this network, whose overhead is a tenth of a step on one core.
    TensorFlow has one, which computes the same formula (Kingma and Ba 2015, "Adam", the end of section 2) and reads and
    updates the optimizer's own variables. They agree to round-off; the largest part of it comes from 1 - 0.999, which
    Keras computes in float64, and the operation in float32, where it is 1.3e-5 of the value.

    Args:
        optimizer: built for `variables`. Any but a plain Adam applies the gradients itself.
        variables: what is trained, in the order of the gradients.
        replicas: how many train it. Keras adds up the gradients of several.
    """
    if replicas > 1 or not _is_plain_adam(optimizer):
        return lambda gradients: optimizer.apply(gradients, variables)
    moments = optimizer.variables[2:]  # after the number of steps and the learning rate: two for each variable

    def apply(gradients: Sequence[tf.Tensor]) -> None:
        step = optimizer.iterations + 1
        for variable, mean, square, gradient in zip(variables, moments[::2], moments[1::2], gradients, strict=True):
            count = tf.cast(step, variable.dtype)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=mean.value.handle,
                v=square.value.handle,
                beta1_power=tf.pow(tf.cast(optimizer.beta_1, variable.dtype), count),
                beta2_power=tf.pow(tf.cast(optimizer.beta_2, variable.dtype), count),
                lr=tf.cast(optimizer.learning_rate, variable.dtype),
                beta1=optimizer.beta_1,
                beta2=optimizer.beta_2,
                epsilon=optimizer.epsilon,
                grad=tf.cast(gradient, variable.dtype),
            )
        optimizer.iterations.assign_add(1)

    return apply


def _is_plain_adam(optimizer: keras.optimizers.Optimizer) -> bool:
    if type(optimizer) is not keras.optimizers.Adam:
        return False
    settings, default = optimizer.get_config(), keras.optimizers.Adam().get_config()
    return isinstance(settings["learning_rate"], float) and all(
        settings[name] == default[name] for name in settings.keys() - _COMPUTED
    )
