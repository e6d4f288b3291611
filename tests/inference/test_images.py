"""Image files as they are, and what becomes of them."""

import gzip
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lenet_keras
from lenet_keras.errors import InvalidArgument, LenetKerasError
from lenet_keras.inference.images import read_image

RANDOM = np.random.default_rng(0)
COLOURS = Image.fromarray(RANDOM.integers(0, 256, (28, 28, 3), dtype=np.uint8))
GREYS = COLOURS.convert("L")


def saved(folder, image, name="image.png", **options):
    path = folder / name
    image.save(path, **options)
    return path


def png(*chunks):
    """Return the content of a PNG file of `chunks`, each a name and data; the last one, empty, is added."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*chunks, (b"IEND", b"")]
    )


def pixels(path, size=(28, 28)):
    image = read_image(path, size)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (*size, 1)
    return image.pixels[..., 0]


def test_a_grey_image_of_the_right_size_keeps_its_pixels(tmp_path):
    np.testing.assert_array_equal(pixels(saved(tmp_path, GREYS)), GREYS)


@pytest.mark.parametrize("mode", ["RGB", "P", "1"])
def test_colours_become_their_luma(tmp_path, mode):
    image = COLOURS.convert(mode)
    np.testing.assert_array_equal(pixels(saved(tmp_path, image)), image.convert("L"))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_is_read(tmp_path, mode):
    smooth = Image.radial_gradient("L").resize((28, 28)).convert("RGB").convert(mode)
    found = pixels(saved(tmp_path, smooth, "image.jpg", quality=95))
    np.testing.assert_allclose(found.astype(int), np.asarray(smooth.convert("L"), int), atol=6)


def test_sixteen_bits_become_eight(tmp_path):
    wide = np.arange(0, 65536, 84, dtype=np.uint16)[:780].reshape(26, 30)
    found = pixels(saved(tmp_path, Image.fromarray(wide)), (26, 30))
    np.testing.assert_array_equal(found, np.round(wide / 65535 * 255))


def test_the_transparent_grey_of_sixteen_bits_becomes_black(tmp_path):
    wide = np.full((28, 28), 40000, np.uint16)
    wide[5] = 50000
    found = pixels(saved(tmp_path, Image.fromarray(wide), transparency=40000))
    assert (found[5] == 195).all()
    assert np.delete(found, 5, axis=0).max() == 0


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_become_black(tmp_path, mode):
    image = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    image.paste((200, 200, 200, 255), (0, 0, 28, 9))
    image.paste((200, 200, 200, 128), (0, 9, 28, 18))
    found = pixels(saved(tmp_path, image.convert(mode)))
    assert set(found[:9].flat) == {200}
    assert set(found[9:18].flat) == {100}
    assert set(found[18:].flat) == {0}


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_becomes_black(tmp_path, mode):
    image = Image.new("RGB", (28, 28), "white")
    image.paste((200, 200, 200), (0, 0, 28, 9))
    image = image.convert(mode) if mode != "P" else image.quantize(2)
    found = pixels(saved(tmp_path, image, transparency=image.getpixel((0, 27))))
    assert set(found[:9].flat) == {200}
    assert set(found[9:].flat) == {0}


def ring():
    """Return the alpha of an antialiased stroke, uint8 [28, 28]."""
    down, across = np.mgrid[:28, :28]
    return np.clip(255 - np.abs(np.hypot(down - 14, across - 14) - 9) * 120, 0, 255).astype(np.uint8)


def drawn(colour, alpha, noise=0):
    """Return an RGBA image of `colour`, its channels up to `noise` brighter, with `alpha`."""
    colours = RANDOM.integers(colour, np.array(colour) + noise + 1, (*alpha.shape, 3))
    return Image.fromarray(np.dstack([colours, alpha]).astype(np.uint8), "RGBA")


INKS = {
    "black": ((0, 0, 0), 0), "nearly black": ((0, 0, 0), 30), "red": ((255, 0, 0), 0), "blue": ((0, 0, 255), 0),
    "green": ((0, 255, 0), 0), "grey": ((128, 128, 128), 0), "white": ((255, 255, 255), 0),
}  # fmt: skip


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("ink", INKS)
def test_ink_of_one_colour_on_a_transparent_page_is_white_on_black(tmp_path, ink, invert):
    image = read_image(saved(tmp_path, drawn(INKS[ink][0], ring(), INKS[ink][1])), invert=invert)
    np.testing.assert_array_equal(image.pixels[..., 0], ring())
    assert not image.looks_inverted


@pytest.mark.parametrize("mode", ["LA", "P", "1", "L", "RGB", "I;16"])
def test_black_ink_is_found_however_a_file_says_what_is_transparent(tmp_path, mode):
    alpha = np.where(ring() > 127, 255, 0).astype(np.uint8)
    page = Image.fromarray(255 - alpha)  # black on white, which is to be transparent
    if mode == "LA":
        path = saved(tmp_path, drawn((0, 0, 0), alpha).convert("LA"))
    elif mode == "I;16":
        path = saved(tmp_path, Image.fromarray(np.asarray(page).astype(np.uint16) * 257), transparency=65535)
    else:
        page = page.quantize(2) if mode == "P" else page.convert(mode)
        path = saved(tmp_path, page, transparency=page.getpixel((0, 0)))
    np.testing.assert_array_equal(pixels(path), alpha)


def test_colour_that_is_hardly_visible_does_not_count(tmp_path):
    """Programs that store colours multiplied by alpha cannot restore them there."""
    image = np.array(drawn((0, 0, 0), ring()))
    image[image[..., 3] < 32, :3] = 255
    np.testing.assert_array_equal(pixels(saved(tmp_path, Image.fromarray(image))), ring())


@pytest.mark.parametrize("alpha", [np.full((28, 28), 255), np.full((28, 28), 128), RANDOM.integers(230, 256, (28, 28))])
def test_alpha_that_does_not_vary_says_nothing(tmp_path, alpha):
    image = drawn((100, 100, 100), alpha.astype(np.uint8), noise=20)
    expected = np.asarray(image.convert("L")) * alpha // 255
    np.testing.assert_array_equal(pixels(saved(tmp_path, image)), expected)


def test_colours_that_differ_are_seen_on_black(tmp_path):
    image = np.array(drawn((60, 60, 60), ring()))
    image[:14, :, :3] = 100
    expected = image[..., 0].astype(int) * ring() // 255
    np.testing.assert_array_equal(pixels(saved(tmp_path, Image.fromarray(image))), expected)


def test_what_is_transparent_stays_black_when_inverted(tmp_path):
    image = np.array(drawn((60, 60, 60), ring()))
    image[:14, :, :3] = 100
    found = read_image(saved(tmp_path, Image.fromarray(image)), invert=True).pixels[..., 0]
    np.testing.assert_array_equal(found, (255 - image[..., 0].astype(int)) * ring() // 255)


def test_what_is_added_around_an_image_stays_black_when_inverted(tmp_path):
    wide = np.full((14, 28), 255, np.uint8)
    wide[4:10, 9:20] = 30
    image = read_image(saved(tmp_path, Image.fromarray(wide)), invert=True)
    np.testing.assert_array_equal(image.pixels[7:21, :, 0], 255 - wide)
    assert image.pixels[:7].max() == image.pixels[21:].max() == 0
    assert image.looks_inverted


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (28, 28), 0), Image.new("L", (60, 30), 255), Image.new("RGB", (5, 9), (9, 80, 200)),
        Image.new("RGBA", (40, 40), (0, 0, 0, 0)), Image.new("RGBA", (40, 40), (90, 0, 0, 128)),
    ],
    ids=["black", "white", "a colour", "transparent", "translucent"],
)  # fmt: skip
def test_an_image_of_one_value_is_blank(tmp_path, image):
    assert read_image(saved(tmp_path, image)).is_blank
    assert read_image(saved(tmp_path, image), invert=True).is_blank


@pytest.mark.parametrize("value", [1, 255])
def test_an_image_of_two_values_is_not_blank(tmp_path, value):
    image = Image.new("L", (28, 28))
    image.putpixel((20, 3), value)
    assert not read_image(saved(tmp_path, image)).is_blank


@pytest.mark.parametrize("depth", [2, 4])
def test_the_transparent_grey_of_few_bits_becomes_black(tmp_path, depth):
    """Pillow compares it with levels of eight bits."""
    levels = np.arange(2**depth)
    key = 2**depth - 2
    row = sum(int(level) << (depth * place) for place, level in enumerate(levels[::-1])).to_bytes(2**depth * depth // 8)
    header = struct.pack(">IIBBBBB", len(levels), 1, depth, 0, 0, 0, 0)
    path = tmp_path / "image.png"
    path.write_bytes(png((b"IHDR", header), (b"tRNS", struct.pack(">H", key)), (b"IDAT", zlib.compress(b"\0" + row))))
    expected = np.where(levels == key, 0, levels * 255 // (2**depth - 1))
    np.testing.assert_array_equal(pixels(path, (1, len(levels)))[0], expected)


def test_the_transparent_colour_of_sixteen_bits_becomes_black(tmp_path):
    colours = (np.array([[10, 20, 30], [200, 100, 250], [90, 90, 90]]) * 256 + 7).astype(">u2")
    path = tmp_path / "image.png"
    header = struct.pack(">IIBBBBB", 3, 1, 16, 2, 0, 0, 0)
    data = zlib.compress(b"\0" + colours.tobytes())
    path.write_bytes(png((b"IHDR", header), (b"tRNS", colours[1].tobytes()), (b"IDAT", data)))
    np.testing.assert_array_equal(pixels(path, (1, 3))[0], [18, 0, 90])


def test_a_cameras_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side: to be turned by 90 degrees clockwise
    found = pixels(saved(tmp_path, GREYS, exif=exif))
    np.testing.assert_array_equal(found, np.rot90(GREYS, -1))


def test_a_large_image_is_averaged_and_not_sampled(tmp_path):
    stripes = np.zeros((280, 280), np.uint8)
    stripes[:, ::2] = 200
    found = pixels(saved(tmp_path, Image.fromarray(stripes)))
    np.testing.assert_allclose(found.astype(int), 100, atol=12)  # every second column alone would be 0 or 200


def test_a_small_image_is_enlarged(tmp_path):
    assert set(pixels(saved(tmp_path, Image.new("L", (3, 3), 77))).flat) == {77}


@pytest.mark.parametrize(("width", "height"), [(60, 30), (30, 60), (56, 56), (1000, 1), (1, 1000)])
def test_proportions_are_kept_on_black(tmp_path, width, height):
    found = pixels(saved(tmp_path, Image.new("L", (width, height), 90)))
    expected = np.zeros((28, 28), np.uint8)
    rows = max(1, 28 * height // max(width, height))
    columns = max(1, 28 * width // max(width, height))
    top, left = (28 - rows) // 2, (28 - columns) // 2
    expected[top : top + rows, left : left + columns] = 90
    np.testing.assert_array_equal(found, expected)


def test_the_image_has_the_requested_size(tmp_path):
    found = pixels(saved(tmp_path, Image.new("L", (28, 28), 90)), (32, 64))
    assert set(found[:, 16:48].flat) == {90}
    assert found[:, :16].max() == found[:, 48:].max() == 0


@pytest.mark.parametrize(("background", "ink", "inverted"), [(0, 255, False), (255, 0, True), (40, 200, False)])
@pytest.mark.parametrize("size", [(28, 28), (300, 100)])
def test_a_bright_border_looks_inverted(tmp_path, background, ink, inverted, size):
    image = Image.new("L", size, background)
    image.paste(ink, (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    assert read_image(saved(tmp_path, image)).looks_inverted is inverted


@pytest.fixture
def real_images():
    """Return the images of the Fashion-MNIST sample that ships with the package, uint8 [N, 28, 28]."""
    files = sorted((Path(lenet_keras.__path__[0]) / "data" / "fashion_mnist_sample").glob("*images*.gz"))
    assert files
    contents = [gzip.decompress(file.read_bytes()) for file in files]
    return np.concatenate([np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28) for content in contents])


def test_real_images_do_not_look_inverted_and_their_inversions_do(tmp_path, real_images):
    for image in real_images:
        assert not read_image(saved(tmp_path, Image.fromarray(image))).looks_inverted
        assert read_image(saved(tmp_path, Image.fromarray(255 - image))).looks_inverted


def test_the_first_of_a_cameras_several_images_is_read(tmp_path):
    first, second = Image.new("L", (28, 28), 50), Image.new("L", (28, 28), 200)
    path = saved(tmp_path, first, "image.jpg", format="MPO", save_all=True, append_images=[second])
    assert set(pixels(path).flat) == {50}


def test_an_animation_is_refused(tmp_path):
    path = saved(tmp_path, GREYS, save_all=True, append_images=[GREYS.rotate(90)])
    with pytest.raises(InvalidArgument, match=f"^{path} is an animation of 2 frames"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "content"), [("empty.png", b""), ("text.png", b"hello\n" * 50), ("zeros.jpg", bytes(500))]
)
def test_a_file_that_is_not_an_image_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidArgument, match=f"^{tmp_path}/{name} is not a PNG or JPEG image"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("other", ["GIF", "BMP", "TIFF", "EPS"])
def test_other_formats_are_refused_whatever_their_name(tmp_path, other):
    path = saved(tmp_path, GREYS, "image.png", format=other)
    with pytest.raises(InvalidArgument, match=f"^{path} is not a PNG or JPEG image"):
        read_image(path)


@pytest.mark.parametrize(("name", "trailer"), [("image.png", 24), ("image.jpg", 2)])  # checksums and end mark
def test_a_truncated_image_is_refused_wherever_it_is_cut(tmp_path, name, trailer):
    content = saved(tmp_path, COLOURS, name).read_bytes()
    path = tmp_path / f"cut_{name}"
    whole = len(content) - trailer
    for length in [*range(0, whole, 7), whole - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(InvalidArgument, match=f"^{path} is (not a PNG or JPEG image|damaged or truncated)"):
            read_image(path)


def test_a_folder_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(InvalidArgument, match=f"^{tmp_path} is not a file"):
        read_image(tmp_path)
    with pytest.raises(InvalidArgument, match=f"^{tmp_path}/none.png does not exist"):
        read_image(tmp_path / "none.png")


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes in folders")
def test_a_pipe_is_read_if_somebody_writes_to_it_and_otherwise_refused_without_waiting(tmp_path):
    """A shell makes one of `<(command)`."""
    content = saved(tmp_path, GREYS).read_bytes()
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write(content)
    np.testing.assert_array_equal(pixels(Path(f"/dev/fd/{reader}")), GREYS)
    os.close(reader)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InvalidArgument, match="is not a file"):
        read_image(tmp_path / "pipe.png")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(tmp_path, device):
    (tmp_path / "image.png").symlink_to(device)
    with pytest.raises(InvalidArgument, match=r"image\.png is not a file"):
        read_image(tmp_path / "image.png")


def test_a_file_that_is_too_large_is_refused(tmp_path):
    path = saved(tmp_path, GREYS)
    os.truncate(path, 2**28 + 1)  # takes no space
    with pytest.raises(InvalidArgument, match=f"^{path} has more than {2**28} bytes"):
        read_image(path)


def test_a_file_that_cannot_be_read_is_a_failure_and_not_an_invalid_request(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(LenetKerasError, match=r"loop\.png cannot be read: Too many levels") as caught:
        read_image(tmp_path / "loop.png")
    assert not isinstance(caught.value, InvalidArgument)


@pytest.mark.parametrize("side", [9_460, 200_000])  # Pillow only warns of the first
def test_a_decompression_bomb_is_refused_unread(tmp_path, side):
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(png((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000)))))
    with pytest.raises(InvalidArgument, match=f"^{path} has more than 89478485 pixels"):
        read_image(path)
