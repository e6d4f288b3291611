"""Images of any mode, size and content, and files with anything in them."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from lenet_keras.errors import InvalidArgument
from lenet_keras.inference.images import read_image

BYTES = st.integers(0, 255)
KINDS = [(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")] + [
    (mode, "JPEG") for mode in ("L", "RGB", "CMYK")
]

CHUNKS = [b"IHDR", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"iCCP", b"eXIf", b"zTXt", b"iTXt", b"tEXt",
          b"acTL", b"fcTL", b"fdAT", b"IDAT"]  # fmt: skip
TRANSPARENCY = {
    "1": st.sampled_from([0, 255]),
    "L": BYTES,
    "P": BYTES | st.binary(min_size=1, max_size=256),  # one colour; or how opaque each is
    "RGB": st.tuples(BYTES, BYTES, BYTES),
    "I;16": st.integers(0, 2**16 - 1),
}


@st.composite
def files(draw):
    """Draw the content of an image file."""
    mode, kind = draw(st.sampled_from(KINDS))
    width, height = draw(st.integers(1, 300)), draw(st.integers(1, 40))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if mode == "I;16":
        image = Image.fromarray(chance.integers(0, 2**16, (height, width), dtype=np.uint16))
    elif mode in ("1", "P"):
        image = Image.fromarray(chance.integers(0, 256, (height, width), dtype=np.uint8)).convert(mode)
    else:
        bands = len(Image.new(mode, (1, 1)).getbands())
        image = Image.frombytes(mode, (width, height), chance.bytes(height * width * bands))
    options = {}
    if kind == "JPEG":
        options["progressive"] = draw(st.booleans())
    elif mode in TRANSPARENCY and draw(st.booleans()):
        options["transparency"] = draw(TRANSPARENCY[mode])
    if draw(st.booleans()):
        exif = Image.Exif()
        exif[0x0112] = draw(st.integers(0, 9))  # its orientation, valid from 1 to 8
        options["exif"] = exif
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def png_chunks(content):
    """Yield kind and data of each chunk of a PNG file."""
    place = 8
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        yield content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += 12 + length


@st.composite
def odd_files(draw):
    """Draw a PNG file whose checksums are right, with chunks that should not be there or say something else."""
    content = io.BytesIO()
    mode = draw(st.sampled_from([mode for mode, kind in KINDS if kind == "PNG"]))
    Image.new(mode, (draw(st.integers(1, 5)), draw(st.integers(1, 5)))).save(content, "PNG")
    chunks = list(png_chunks(content.getvalue()))
    exif = st.binary(max_size=30).map(lambda tags: b"II*\0\x08\0\0\0" + tags)
    data = st.just(b"") | st.binary(max_size=30) | exif
    for _ in range(draw(st.integers(1, 3))):
        chunks.insert(draw(st.integers(0, len(chunks))), (draw(st.sampled_from(CHUNKS)), draw(data)))
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
             for kind, data in chunks]  # fmt: skip
    return content.getvalue()[:8] + b"".join(parts)


@st.composite
def damaged_files(draw):
    """Draw an image file with bytes changed, inserted or cut off; or something else."""
    content = bytearray(draw(files() | st.binary(max_size=100)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)) | st.integers(0, min(len(content), 60)))
        change = draw(st.sampled_from(["change", "insert", "cut"]))
        if change == "cut":
            del content[place:]
        elif change == "insert" or place == len(content):
            content[place:place] = draw(st.binary(max_size=5))
        else:
            content[place] = draw(BYTES)
    return bytes(content)


def read_or_refused(path, size=(28, 28)):
    """Return the message of a refusal; None for an image, which then has the form it should have."""
    message = None
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            pixels = read_image(path, size).pixels
        except InvalidArgument as error:
            message = str(error)
    assert not seen
    if message is not None:
        assert message.startswith(f"{path} ")
        return message
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*size, 1)
    return None


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("images") / "image"


@settings(max_examples=300, deadline=None)
@given(content=files(), size=st.just((28, 28)) | st.tuples(st.integers(1, 64), st.integers(1, 64)))
def test_any_image_becomes_grey_pixels_of_the_requested_size(path, content, size):
    path.write_bytes(content)
    assert read_or_refused(path, size) is None


@settings(max_examples=100, deadline=None)
@given(pixels=arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_a_grey_image_of_the_requested_size_keeps_its_pixels(path, pixels):
    Image.fromarray(pixels).save(path, "PNG")
    np.testing.assert_array_equal(read_image(path, pixels.shape).pixels[:, :, 0], pixels)


@settings(max_examples=100, deadline=None)
@given(level=BYTES, width=st.integers(1, 200), height=st.integers(1, 200))
def test_an_image_of_one_grey_level_keeps_it_within_its_area(path, level, width, height):
    Image.new("L", (width, height), level).save(path, "PNG")
    pixels = read_image(path).pixels[:, :, 0]
    scale = 28 / max(width, height)
    inside = max(1, round(height * scale)) * max(1, round(width * scale))
    assert np.count_nonzero(pixels == level) >= inside
    assert set(np.unique(pixels)) <= {0, level}


@settings(max_examples=600, deadline=None)
@given(content=damaged_files() | odd_files())
def test_damage_is_read_or_refused_in_one_line_that_names_the_file(path, content):
    path.write_bytes(content)
    message = read_or_refused(path)
    assert message is None or len(message.splitlines()) == 1


@settings(deadline=None)
@given(name=st.binary(min_size=1, max_size=60).filter(lambda name: not {0, ord("/")} & {*name} and name.strip(b".")))
def test_a_file_may_have_any_name(path, name):
    """Line breaks and bytes that are not text included: the message has the name as it is."""
    folder = path.parent / "named"
    folder.mkdir(exist_ok=True)
    named = folder / os.fsdecode(name)
    assert read_or_refused(named) == f"{named} does not exist: expected the path of a PNG or JPEG image"
    Image.new("L", (28, 28)).save(named, "PNG")
    assert read_or_refused(named) is None
    named.write_bytes(b"not an image")
    assert read_or_refused(named).startswith(f"{named} is not a PNG or JPEG image")
    named.unlink()
