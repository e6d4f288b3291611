"""Image files, converted to what the models take: grey, small, bright on black."""

from __future__ import annotations

import errno
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from lenet_keras.data.catalogue import IMAGE_SHAPE
from lenet_keras.errors import InvalidArgument, LenetKerasError, first_line
from lenet_keras.files import read_bounded

# The mean of an image's outermost pixels above which `looks_inverted` is set. The datasets have a black background.
_BRIGHT_BORDER = 96


# A picture is its alpha where colour says nothing: alpha varies by more than `SIMILAR` levels, the luminance of what is
# `VISIBLE` (the least alpha; below it, programs round colours coarsely) by no more, and that is below `BRIGHT`.
# Brighter ink is legible on black as it is.
SIMILAR = 32
VISIBLE = 32
BRIGHT = 192

_LARGEST_FILE = 2**28  # bytes; 89 million pixels of incompressible colours


@dataclass(frozen=True)
class GreyImage:
    """An image in the form of the datasets.

    Attributes:
        pixels: uint8 [height, width, 1], 0 (black) to 255 (white).
        looks_inverted: the outermost pixels of the image are bright, where the datasets have a black background: the
            image may have to be inverted. The rule, a mean of the one-pixel frame above 96, is wrong about none of
            the 10,000 test images of Fashion-MNIST and none of their inversions, and about 2 of the 60,000 training
            images and none of theirs.
        is_blank: all pixels of the image have one value, so there is nothing to classify.
    """

    pixels: npt.NDArray[np.uint8]
    looks_inverted: bool
    is_blank: bool


def read_image(path: Path, size: tuple[int, int] = IMAGE_SHAPE[:2], *, invert: bool = False) -> GreyImage:
    """Read a PNG or JPEG file as a grey image of `size` (height, width).

    Colours become grey by ITU-R 601 luma, transparent pixels become black, 16 bits become 8, and a camera's EXIF
    orientation is applied. If everything visible on a transparent page has nearly one luminance and is not bright, such
    as black strokes, the image is its alpha: white strokes on black. The image is scaled with antialiasing to fit
    `size`, its proportions kept, and centred on black: the images of Fashion-MNIST were made like this (Xiao, Rasul,
    Vollgraf 2017, section 2, on white before their inversion), and stretching would turn a dress into a pullover. An
    image that already has `size` keeps its pixels.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "white.png")
    ...     Image.new("RGB", (56, 56), "white").save(path)
    ...     image = read_image(path)
    >>> image.pixels.shape, image.pixels.min(), image.looks_inverted, image.is_blank
    ((28, 28, 1), np.uint8(255), True, True)

    Args:
        path: of the file; it may be a pipe.
        size: height and width.
        invert: swap bright and dark in what the file shows. What is transparent and what is added around the image to
            fit it stay black, so an image that is its alpha stays the same.

    Raises:
        InvalidArgument: not a PNG or JPEG image (another format or none, damaged or truncated, an animation, or more
            pixels than `PIL.Image.MAX_IMAGE_PIXELS`), no file of that name, or a folder or device.
        LenetKerasError: the file cannot be read.
    """
    luminance, alpha = _decode(path)
    small = np.asarray(_fit(_on_black(luminance, alpha), size))
    looks_inverted = _has_bright_border(small)
    if invert:
        small = np.asarray(_fit(_on_black(luminance, alpha, invert=True), size))
    top, left = (size[0] - small.shape[0]) // 2, (size[1] - small.shape[1]) // 2
    pixels = np.zeros((*size, 1), np.uint8)
    pixels[top : top + small.shape[0], left : left + small.shape[1], 0] = small
    return GreyImage(pixels, looks_inverted, is_blank=_is_blank(small))


def as_image(
    pixels: npt.NDArray[np.uint8], size: tuple[int, int] = IMAGE_SHAPE[:2], *, invert: bool = False
) -> GreyImage:
    """Take pixels uint8 [height, width, 1] as a grey image of `size` (height, width); `invert` swaps bright and dark.

    >>> as_image(np.zeros((28, 28, 1), np.uint8)).looks_inverted
    False

    Raises:
        InvalidArgument: pixels of another type or shape.
    """
    if pixels.dtype != np.uint8 or pixels.shape != (*size, 1):
        raise InvalidArgument(
            f"an image must be uint8 [{size[0]}, {size[1]}, 1]. Received: {pixels.dtype} {list(pixels.shape)}"
        )
    return GreyImage(255 - pixels if invert else pixels, _has_bright_border(pixels[:, :, 0]), _is_blank(pixels))


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    r"""Return the content of a grey PNG file of `pixels`, uint8 [height, width, 1].

    >>> encode_png(np.zeros((28, 28, 1), np.uint8))[:4]
    b'\x89PNG'
    """
    content = io.BytesIO()
    Image.fromarray(pixels[:, :, 0]).save(content, "PNG")
    return content.getvalue()


def _is_blank(pixels: npt.NDArray[np.uint8]) -> bool:
    return bool(pixels.min() == pixels.max())


def _has_bright_border(pixels: npt.NDArray[np.uint8]) -> bool:
    border = np.ones(pixels.shape, bool)
    border[1:-1, 1:-1] = False
    return bool(pixels[border].mean() > _BRIGHT_BORDER)


def _decode(path: Path) -> tuple[Image.Image, Image.Image | None]:
    """Return the luminance and, unless the image is opaque, alpha."""
    try:
        content = read_bounded(path, _LARGEST_FILE, pipes=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidArgument(f"{path} does not exist: expected the path of a PNG or JPEG image") from error
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.EINVAL):
            raise InvalidArgument(f"{path} is not a file: expected the path of a PNG or JPEG image") from error
        if error.errno == errno.EFBIG:
            raise InvalidArgument(f"{path} has more than {_LARGEST_FILE} bytes, which is the limit") from error
        raise LenetKerasError(f"{path} cannot be read: {error.strerror}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
                frames = getattr(image, "n_frames", 1)
                # A JPEG with several (MPO) is a camera's: the first is the image, the others are previews or depth.
                if image.format == "PNG" and frames > 1:
                    raise InvalidArgument(f"{path} is an animation of {frames} frames: save one frame as an image")
                if image.format == "PNG" and image.mode in ("L", "RGB") and "transparency" in image.info:
                    image.info["transparency"] = _in_eight_bits(image.info["transparency"], depth=content[24])
                return _luminance_and_alpha(ImageOps.exif_transpose(image))
        except (InvalidArgument, MemoryError):
            raise
        except UnidentifiedImageError as error:
            raise InvalidArgument(f"{path} is not a PNG or JPEG image, or is only the beginning of one") from error
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise InvalidArgument(
                f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels, which is the limit: scale it down"
            ) from error
        except Exception as error:  # damage raises OSError, SyntaxError, ValueError, struct.error and more
            raise InvalidArgument(f"{path} is damaged or truncated: {first_line(error)}") from error


def _in_eight_bits(colour: int | tuple[int, ...], depth: int) -> int | tuple[int, ...]:
    # Pillow converts the pixels of a PNG of 2, 4 or 16 bits to 8 bits, but not the colour that is transparent.
    if isinstance(colour, tuple):
        return tuple(level >> 8 if depth == 16 else level & 255 for level in colour)
    most: int = 2**depth - 1
    return (colour & most) * 255 // most


def _luminance_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if image.mode.startswith("I"):  # 16-bit grey
        values = np.asarray(image, np.uint16)
        luminance = Image.fromarray((values / 257).round().astype(np.uint8))
        key = image.info.get("transparency")
        return luminance, None if key is None else Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba.convert("L"), rgba.getchannel("A")
    return image.convert("L"), None


def _on_black(luminance: Image.Image, alpha: Image.Image | None, invert: bool = False) -> Image.Image:
    if alpha is not None and np.ptp(np.asarray(alpha)) > SIMILAR:
        mask = alpha.point([255 * (level >= VISIBLE) for level in range(256)])
        levels = np.flatnonzero(luminance.histogram(mask))
        if levels[-1] - levels[0] <= SIMILAR and (invert or levels[-1] < BRIGHT):
            return alpha
    shown = ImageOps.invert(luminance) if invert else luminance
    return shown if alpha is None else ImageChops.multiply(shown, alpha)


def _fit(grey: Image.Image, size: tuple[int, int]) -> Image.Image:
    scale = min(size[0] / grey.height, size[1] / grey.width)
    height, width = max(1, round(grey.height * scale)), max(1, round(grey.width * scale))
    return grey.resize((width, height), Image.Resampling.BILINEAR)  # Pillow antialiases when it shrinks
