"""Images decoded inside the graph, compared with Pillow's decoding outside."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lenet_keras.export.signatures import MAX_PIXELS, decode_images
from lenet_keras.inference.images import read_image


@pytest.fixture(scope="module")
def decode():
    """Return a function from file contents to pixels [N, 28, 28, 1]."""
    graph = tf.function(
        lambda contents: decode_images(contents, 28, 28), input_signature=[tf.TensorSpec((None,), tf.string)]
    )
    return lambda contents: graph(tf.constant(contents, tf.string)).numpy()


def content(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@st.composite
def image_files(draw):
    mode, kind = draw(
        st.sampled_from(
            [(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
            + [(mode, "JPEG") for mode in ("L", "RGB", "CMYK")]
        )
    )
    width, height = draw(st.tuples(st.integers(1, 120), st.integers(1, 120)) | st.just((28, 28)))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if mode == "I;16":
        return content(Image.fromarray(chance.integers(0, 2**16, (height, width), dtype=np.uint16)), kind)
    if mode == "LA":  # Pillow makes it of other modes only
        image = Image.fromarray(chance.integers(0, 256, (height, width, 2), dtype=np.uint8), "LA")
    elif mode in ("L", "1", "P"):
        image = Image.fromarray(chance.integers(0, 256, (height, width), dtype=np.uint8)).convert(mode)
    else:
        shape = (height, width, len(Image.new(mode, (1, 1)).getbands()))
        image = Image.frombytes(mode, (width, height), chance.integers(0, 256, shape, dtype=np.uint8).tobytes())
    return content(image, kind)


@settings(max_examples=150, deadline=None)
@given(st.lists(image_files(), min_size=1, max_size=3))
def test_any_image_is_read_as_outside_the_graph(decode, tmp_path_factory, contents):
    path = tmp_path_factory.getbasetemp() / "image"
    for found, file in zip(decode(contents), contents, strict=True):
        path.write_bytes(file)
        difference = np.abs(found - read_image(path).pixels)
        # Pillow rounds twice, and halves of alpha and of 16 bits the other way.
        assert difference.max() <= 2
        assert (found == found.round()).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_an_image_of_the_right_size_keeps_its_pixels(decode, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGBA" if mode == "RGBA" else mode)
    np.testing.assert_array_equal(decode([content(image, "PNG")])[0, :, :, 0], pixels)


def test_a_large_image_is_averaged_and_not_sampled(decode):
    stripes = np.tile(np.array([0, 255], np.uint8), (280, 140))
    assert 100 < decode([content(Image.fromarray(stripes), "PNG")])[0, 2:-2, 2:-2].mean() < 155


def test_another_size_is_possible_and_proportions_are_kept():
    tall = content(Image.new("L", (10, 40), 255), "PNG")
    pixels = decode_images(tf.constant([tall]), 20, 32).numpy()[0, :, :, 0]
    assert pixels.shape == (20, 32)
    np.testing.assert_array_equal(np.flatnonzero(pixels.any(axis=0)), np.arange(13, 18) + 0)
    assert (pixels[:, 14:17] == 255).all()


def png_of_size(width, height):
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def jpeg_of_size(width, height):
    file = bytearray(content(Image.new("L", (8, 8)), "JPEG"))
    frame = file.index(b"\xff\xc0")
    file[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(file)


@pytest.mark.parametrize(
    "bomb", [png_of_size(4097, 4096), png_of_size(2**31 - 1, 2**31 - 1), jpeg_of_size(65500, 65500)]
)
def test_a_decompression_bomb_is_refused_undecoded(decode, bomb):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"more than {MAX_PIXELS} pixels"):
        decode([bomb])


BAD = [
    b"", b"x", b"GIF89a" + bytes(100), b"BM" + bytes(100), b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n",
    content(Image.new("L", (40, 40)), "PNG")[:50], content(Image.new("L", (40, 40)), "JPEG")[:150],
    png_of_size(0, 5), png_of_size(2**32 - 1, 2**32 - 1),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_file_that_is_not_an_image_is_an_invalid_argument(decode, bad):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode([bad])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_read_or_an_invalid_argument(decode, data):
    file = bytearray(data.draw(image_files()))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    # Declared sizes up to the limit would cost a second each.
    if png_like := file[:4] == b"\x89PNG":
        png_like = max(struct.unpack(">II", file[16:24].ljust(8, b"\0"))) < 2000
    try:
        pixels = decode([bytes(file)]) if png_like or file[:2] == b"\xff\xd8" else None
    except tf.errors.InvalidArgumentError:
        return
    if pixels is not None:
        assert pixels.shape == (1, 28, 28, 1)
        assert pixels.min() >= 0
        assert pixels.max() <= 255
