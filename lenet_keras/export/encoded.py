"""From PNG and JPEG files to pixels, inside the graph: what `lenet_keras.pictures` does, in TensorFlow's operations."""

from __future__ import annotations

import tensorflow as tf

# A picture of this size takes 400 MB to decode. More is refused before it is decoded: a few kilobytes can hold it.
MAX_PIXELS = 4096 * 4096

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's


def decode_pictures(contents: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Read pictures as the models take them: grey, small, their proportions kept, centred on black.

    The rules are those of `lenet_keras.pictures.read_picture`: ITU-R 601 luma, what is transparent becomes black, 16
    bits become 8, scaled with antialiasing. A picture that has the size already keeps its pixels; others may differ
    from those of `read_picture` by one level of 255, for Pillow rounds between its two passes. A camera's EXIF
    orientation is not applied: TensorFlow does not read it.

    Args:
        contents: string [N], the contents of PNG or JPEG files.
        height: of the images that the model takes.
        width: of the same.

    Returns:
        float32 [N, height, width, 1], whole numbers from 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: (when the graph runs) a content is neither PNG nor JPEG, is damaged, or has more
            than `MAX_PIXELS` pixels.
    """
    shape = tf.TensorSpec((height, width, 1), tf.float32)
    return tf.map_fn(lambda content: _fit(_grey(content), height, width), contents, fn_output_signature=shape)


def _grey(content: tf.Tensor) -> tf.Tensor:
    """Grey levels, float32 [height, width, 1], whole numbers from 0 to 255."""
    is_jpeg = tf.io.is_jpeg(content)
    size = tf.cond(is_jpeg, lambda: _jpeg_size(content), lambda: _png_size(content))
    small_enough = tf.debugging.assert_less_equal(
        tf.reduce_prod(tf.cast(size, tf.float64)),
        tf.constant(MAX_PIXELS, tf.float64),
        f"a picture has more than {MAX_PIXELS} pixels",
    )
    with tf.control_dependencies([small_enough]):
        content = tf.identity(content)
    rgb = tf.cond(is_jpeg, lambda: _jpeg_rgb(content), lambda: _png_rgb(content))
    return tf.round(tf.tensordot(rgb, tf.constant(_LUMA), 1))[..., tf.newaxis]


def _jpeg_size(content: tf.Tensor) -> tf.Tensor:
    return tf.image.extract_jpeg_shape(content)[:2]


def _png_size(content: tf.Tensor) -> tf.Tensor:
    # Behind the signature of 8 bytes, and length and name of the first chunk (PNG specification, 11.2.1).
    return tf.io.decode_raw(_bytes(content, 16, 8), tf.int32, little_endian=False)


def _bytes(content: tf.Tensor, start: int, count: int) -> tf.Tensor:
    # Zeros behind the end: TensorFlow's own message for a string too short quotes it, and is no UTF-8 then.
    beginning = tf.strings.substr(content, 0, start + count)
    return tf.strings.substr(beginning + b"\0" * (start + count), start, count)


def _jpeg_rgb(content: tf.Tensor) -> tf.Tensor:
    # The accurate transform is Pillow's; the default one differs by up to 2 levels.
    return tf.cast(tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"), tf.float32)


def _png_rgb(content: tf.Tensor) -> tf.Tensor:
    rgba = tf.cast(tf.io.decode_png(content, channels=4), tf.float32)
    depth = tf.cast(tf.io.decode_raw(_bytes(content, 24, 1), tf.uint8)[0], tf.int32)
    alpha = rgba[..., 3:]
    # Where a file of 1, 2 or 4 bits has no alpha, TensorFlow fills in the largest value of so many bits for opaque.
    filled_in = (depth < 8) & tf.reduce_all(alpha == tf.cast(2**depth - 1, tf.float32))
    return rgba[..., :3] * tf.cond(filled_in, lambda: tf.ones_like(alpha), lambda: alpha / 255)


def _fit(grey: tf.Tensor, height: int, width: int) -> tf.Tensor:
    size = tf.cast(tf.shape(grey)[:2], tf.float32)
    scale = tf.reduce_min(tf.constant([height, width], tf.float32) / size)
    small = tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)
    scaled = tf.round(tf.image.resize(grey, small, antialias=True))
    top, left = (height - small[0]) // 2, (width - small[1]) // 2
    return tf.image.pad_to_bounding_box(scaled, top, left, height, width)
