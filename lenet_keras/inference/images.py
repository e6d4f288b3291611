"""Image files, converted to what the models take: grey, small, bright on black."""

from __future__ import annotations

import io
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from lenet_keras.data.catalogue import IMAGE_SHAPE
from lenet_keras.errors import InvalidArgument, LenetKerasError, first_line

# The mean of an image's outermost pixels above which `looks_inverted` is set. The datasets have a black background.
_BRIGHT_BORDER = 96


@dataclass(frozen=True)
class GreyImage:
    """An image in the form of the datasets.

    Attributes:
        pixels: uint8 [height, width, 1], 0 (black) to 255 (white).
        looks_inverted: the outermost pixels are bright, where the datasets have a black background: the image may have
            to be inverted (`255 - pixels`). The rule, a mean of the one-pixel frame above 96, is wrong about none of
            the 10,000 test images of Fashion-MNIST and none of their inversions, and about 2 of the 60,000 training
            images and none of theirs.
    """

    pixels: npt.NDArray[np.uint8]
    looks_inverted: bool


def read_image(path: Path, size: tuple[int, int] = IMAGE_SHAPE[:2]) -> GreyImage:
    """Read a PNG or JPEG file as a grey image of `size` (height, width).

    Colours become grey by ITU-R 601 luma, transparent pixels become black, 16 bits become 8, and a camera's EXIF
    orientation is applied. The image is scaled with antialiasing to fit `size`, its proportions kept, and centred on
    black: the images of Fashion-MNIST were made like this (Xiao, Rasul, Vollgraf 2017, section 2, on white before
    their inversion), and stretching would turn a dress into a pullover. An image that already has `size` keeps its
    pixels.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "white.png")
    ...     Image.new("RGB", (56, 56), "white").save(path)
    ...     image = read_image(path)
    >>> image.pixels.shape, image.pixels.min(), image.looks_inverted
    ((28, 28, 1), np.uint8(255), True)

    Raises:
        InvalidArgument: not a PNG or JPEG image (another format or none, damaged or truncated, an animation, or more
            pixels than `PIL.Image.MAX_IMAGE_PIXELS`), no file of that name, or a folder.
        LenetKerasError: the file cannot be read.
    """
    grey = _read_grey(path)
    scale = min(size[0] / grey.height, size[1] / grey.width)
    height, width = max(1, round(grey.height * scale)), max(1, round(grey.width * scale))
    small = np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR))  # Pillow antialiases when it shrinks
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    pixels = np.zeros((*size, 1), np.uint8)
    pixels[top : top + height, left : left + width, 0] = small
    return GreyImage(pixels, looks_inverted=_has_bright_border(small))


def as_image(pixels: npt.NDArray[np.uint8], size: tuple[int, int] = IMAGE_SHAPE[:2]) -> GreyImage:
    """Take pixels uint8 [height, width, 1] as a grey image of `size` (height, width).

    >>> as_image(np.zeros((28, 28, 1), np.uint8)).looks_inverted
    False

    Raises:
        InvalidArgument: pixels of another type or shape.
    """
    if pixels.dtype != np.uint8 or pixels.shape != (*size, 1):
        raise InvalidArgument(
            f"an image must be uint8 [{size[0]}, {size[1]}, 1]. Received: {pixels.dtype} {list(pixels.shape)}"
        )
    return GreyImage(pixels, looks_inverted=_has_bright_border(pixels[:, :, 0]))


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    r"""Return the content of a grey PNG file of `pixels`, uint8 [height, width, 1].

    >>> encode_png(np.zeros((28, 28, 1), np.uint8))[:4]
    b'\x89PNG'
    """
    content = io.BytesIO()
    Image.fromarray(pixels[:, :, 0]).save(content, "PNG")
    return content.getvalue()


def _has_bright_border(pixels: npt.NDArray[np.uint8]) -> bool:
    border = np.ones(pixels.shape, bool)
    border[1:-1, 1:-1] = False
    return bool(pixels[border].mean() > _BRIGHT_BORDER)


def _read_grey(path: Path) -> Image.Image:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait
            raise InvalidArgument(f"{path} is not a file: expected the path of a PNG or JPEG image")
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidArgument(f"{path} does not exist: expected the path of a PNG or JPEG image") from error
    except OSError as error:
        raise LenetKerasError(f"{path} cannot be read: {error.strerror}") from error
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                frames = getattr(image, "n_frames", 1)
                # A JPEG with several (MPO) is a camera's: the first is the image, the others are previews or depth.
                if image.format == "PNG" and frames > 1:
                    raise InvalidArgument(f"{path} is an animation of {frames} frames: save one frame as an image")
                return _to_grey(ImageOps.exif_transpose(image))
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


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        values = np.asarray(image, np.uint16)
        visible = values != image.info.get("transparency")
        return Image.fromarray(np.where(visible, (values / 257).round(), 0).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return ImageChops.multiply(rgba.convert("L"), rgba.getchannel("A"))
    return image.convert("L")
