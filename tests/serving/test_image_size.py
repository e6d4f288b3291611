"""The number of pixels that decoding an image will cost is read from its first bytes."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lenet_keras.inference.images import encode_png
from lenet_keras.serving.image_size import count_pixels


def file(kind, size, **options):
    stream = io.BytesIO()
    Image.fromarray(np.zeros(size, np.uint8)).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (300, 200), (1, 5000)])
def test_png_and_jpeg_files_have_their_pixels(size):
    assert count_pixels(encode_png(np.zeros((*size, 1), np.uint8))) == size[0] * size[1]
    for options in ({}, {"progressive": True}, {"quality": 1}, {"comment": b"\xff\xc0" * 50}):
        assert count_pixels(file("JPEG", size, **options)) == size[0] * size[1]


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"text"])
def test_anything_else_has_none(content):
    assert count_pixels(content) == 0


def test_no_damaged_jpeg_has_more_pixels_for_tensorflow_than_are_counted(chance, repeats):
    """Or a request could cost more than it may."""
    whole = file("JPEG", (40, 30), comment=b"\xff\xff" * 20)
    decoded = 0
    for _ in range(300 * repeats):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(2, 250)
            content[place : place + chance.randrange(3)] = chance.choice(
                [b"\xff", b"\xff\xff", b"\x00", b"\xff\xd0", b"\xff\xc1", chance.randbytes(2)]
            )
        try:
            height, width, _ = tf.image.extract_jpeg_shape(bytes(content)).numpy()
        except tf.errors.InvalidArgumentError:
            continue
        decoded += 1
        assert count_pixels(bytes(content)) == height * width
    assert decoded > 20
