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


def png(*chunks):
    """Return the content of a PNG file of `chunks`, each a name and data; the last one, empty, is added."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in [*chunks, (b"IEND", b"")]
    )


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


@st.composite
def drawings(draw):
    """Draw a PNG file of ink, of one luminance or several, on a page that it calls transparent in one of the ways."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    down, across = np.mgrid[:height, :width]
    distance = np.abs(np.hypot(down - height / 2, across - width / 2) - draw(st.integers(0, 30)))
    alpha = np.clip(255 - distance * draw(st.sampled_from([3, 40, 1000])), 0, draw(st.integers(1, 255)))
    ink = np.array(draw(st.tuples(*[st.integers(0, 255)] * 3)))
    colours = ink + chance.integers(0, draw(st.sampled_from([1, 20, 40, 120])), (height, width, 1))
    image = Image.fromarray(np.dstack([np.clip(colours, 0, 255), alpha]).astype(np.uint8), "RGBA")
    mode = draw(st.sampled_from(["RGBA", "LA", "P", "L", "RGB", "1", "I;16"]))
    if mode in ("RGBA", "LA"):
        return content(image.convert(mode), "PNG")
    if mode == "P":
        return content(image.quantize(draw(st.sampled_from([2, 4, 16, 256]))), "PNG")
    page = Image.new("RGB", image.size, draw(st.sampled_from(["white", "black"])))
    page.paste(image, mask=Image.fromarray((alpha > 127).astype(np.uint8) * 255))
    if mode == "I;16":
        page = Image.fromarray(np.asarray(page.convert("L")).astype(np.uint16) * 257)
    else:
        page = page.convert(mode)
    return content(page, "PNG", transparency=page.getpixel((0, 0)))


@settings(max_examples=60, deadline=None)
@given(st.lists(drawings(), min_size=1, max_size=3))
def test_a_drawing_on_a_transparent_page_is_read_as_outside_the_graph(decode, tmp_path_factory, contents):
    path = tmp_path_factory.getbasetemp() / "drawing"
    for found, file in zip(decode(contents), contents, strict=True):
        path.write_bytes(file)
        assert np.abs(found - read_image(path).pixels).max() <= 1


@pytest.mark.parametrize("colour", [(0, 0, 0), (20, 10, 0), (0, 0, 255), (128, 128, 128)])
def test_ink_of_one_colour_on_a_transparent_page_is_white_on_black(decode, colour):
    image = Image.new("RGBA", (28, 28), (*colour, 0))
    image.paste((*colour, 255), (5, 6, 20, 9))
    image.paste((*colour, 100), (5, 9, 20, 12))
    found = decode([content(image, "PNG")])[0, :, :, 0]
    np.testing.assert_array_equal(found, np.asarray(image)[..., 3])


def png_of(depth, colour_type, pixels, *chunks):
    """Return a PNG file of `pixels`, whole numbers [16, 16, channels]."""
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in pixels]
    else:
        places = 8 // depth
        parts = pixels.reshape(16, -1, places) << (depth * np.arange(places)[::-1])
        rows = [row.astype(np.uint8).tobytes() for row in parts.sum(axis=2)]
    return png(
        (b"IHDR", struct.pack(">IIBBBBB", 16, 16, depth, colour_type, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
    )


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour types: grey, RGB, palette, grey and alpha, RGBA


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(
    ("depth", "colour_type"),
    [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (2, 3), (4, 3), (8, 3), (8, 4), (16, 4), (8, 6),
     (16, 6)],
)  # fmt: skip
def test_every_kind_of_png_is_read_as_outside_the_graph(decode, tmp_path, depth, colour_type, transparent):
    chance = np.random.default_rng(depth * 10 + colour_type)
    pixels = chance.integers(0, 2**depth, (16, 16, CHANNELS[colour_type]))
    if colour_type == 2:
        pixels[3:6] = pixels[0, 0]  # the colour that is transparent
    chunks = [(b"gAMA", struct.pack(">I", 100_000))]  # ignored by both
    if colour_type == 3:
        chunks.append((b"PLTE", chance.bytes(3 * 2**depth)))
    if transparent and colour_type == 3:
        chunks.append((b"tRNS", chance.bytes(min(5, 2**depth))))
    elif transparent and colour_type in (0, 2):
        chunks.append((b"tRNS", pixels[0, 0].astype(">u2").tobytes()))
    file = png_of(depth, colour_type, pixels, *chunks)
    (tmp_path / "image").write_bytes(file)
    assert np.abs(decode([file])[0] - read_image(tmp_path / "image").pixels).max() <= 2


def jpeg_segments(file):
    """Yield marker and content of each segment of a JPEG file before its data, which come last, without a marker."""
    place = 2
    while file[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(file[place + 2 : place + 4], "big")
        yield file[place + 1], file[place:end]
        place = end
    yield None, file[place:]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("transform", [None, 0, 1, 2])
def test_a_cmyk_jpeg_is_read_alike_whatever_adobes_marker_says(decode, tmp_path, transform, progressive):
    """None is there, or one that calls the colours CMYK (0) or YCCK (2); 1 is for three colours."""
    ramp = np.linspace(0, 255, 40 * 30 * 4).reshape(30, 40, 4).astype(np.uint8)
    written = content(Image.frombytes("CMYK", (40, 30), ramp.tobytes()), "JPEG", progressive=progressive)
    marker = b"" if transform is None else b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])
    file = b"\xff\xd8" + marker + b"".join(part for name, part in jpeg_segments(written) if name != 0xEE)
    assert (transform is None) == (b"Adobe" not in file)
    (tmp_path / "image").write_bytes(file)
    assert np.abs(decode([file])[0] - read_image(tmp_path / "image").pixels).max() <= 2


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"keep_rgb": True}])
def test_every_kind_of_jpeg_is_read_as_outside_the_graph(decode, tmp_path, options):
    chance = np.random.default_rng(0)
    file = content(Image.frombytes("RGB", (50, 40), chance.bytes(6000)), "JPEG", **options)
    (tmp_path / "image").write_bytes(file)
    assert np.abs(decode([file])[0] - read_image(tmp_path / "image").pixels).max() <= 2


def test_a_jpeg_without_a_marker_that_names_its_colours_is_read_as_outside_the_graph(decode, tmp_path):
    written = content(Image.frombytes("RGB", (50, 40), np.random.default_rng(0).bytes(6000)), "JPEG")
    file = b"\xff\xd8" + b"".join(part for name, part in jpeg_segments(written) if name != 0xE0)
    assert b"JFIF" not in file
    (tmp_path / "image").write_bytes(file)
    assert np.abs(decode([file])[0] - read_image(tmp_path / "image").pixels).max() <= 2


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "ICO"])
def test_another_format_is_called_so(decode, kind):
    with pytest.raises(tf.errors.InvalidArgumentError, match="an image is neither PNG nor JPEG"):
        decode([content(Image.new("RGB", (40, 40)), kind)])


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
    return png((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"")))


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
