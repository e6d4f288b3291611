"""Pictures from files, made into what the models take: grey, small, bright on black."""

from __future__ import annotations

import io
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from lenet_keras.errors import InvalidArgument, LenetKerasError, first_line

# The mean of a picture's outermost pixels above which `looks_inverted` is set. The data sets have a black background.
_BRIGHT_BORDER = 96


@dataclass(frozen=True)
class Picture:
    """A picture in the form of the data sets.

    Attributes:
        pixels: uint8 [height, width, 1], 0 (black) to 255 (white).
        looks_inverted: the outermost pixels are bright, where the data sets have a black background: the picture may
            have to be inverted (`255 - pixels`). The rule, a mean of the one-pixel frame above 96, is wrong about none
            of the 10,000 test images of Fashion-MNIST and none of their inversions, and about 2 of the 60,000 training
            images and none of theirs.
    """

    pixels: npt.NDArray[np.uint8]
    looks_inverted: bool


def read_picture(path: Path, size: tuple[int, int] = (28, 28)) -> Picture:
    """Read a PNG or JPEG file as a grey picture of `size` (height, width).

    Colours become grey by ITU-R 601 luma, what is transparent becomes black, 16 bits become 8, and a camera's EXIF
    orientation is applied. The picture is scaled with antialiasing to fit `size`, its proportions kept, and centred on
    black: so were the images of Fashion-MNIST made (Xiao, Rasul, Vollgraf 2017, section 2, on white before their
    inversion), and stretching would turn a dress into a pullover. A picture that has `size` already keeps its pixels.

    Raises:
        InvalidArgument: not a PNG or JPEG picture: another format or nothing at all, damaged or cut off, an animation,
            or more pixels than `PIL.Image.MAX_IMAGE_PIXELS`; or no file of that name, or a folder.
        LenetKerasError: the file cannot be read.
    """
    grey = _read_grey(path)
    scale = min(size[0] / grey.height, size[1] / grey.width)
    height, width = max(1, round(grey.height * scale)), max(1, round(grey.width * scale))
    small = np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR))  # widened to antialias when it shrinks

    inside = np.zeros(small.shape, bool)
    inside[1:-1, 1:-1] = True
    pixels = np.zeros((*size, 1), np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    pixels[top : top + height, left : left + width, 0] = small
    return Picture(pixels, looks_inverted=bool(small[~inside].mean() > _BRIGHT_BORDER))


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The content of a grey PNG file of `pixels`, uint8 [height, width, 1]."""
    content = io.BytesIO()
    Image.fromarray(pixels[:, :, 0]).save(content, "PNG")
    return content.getvalue()


def _read_grey(path: Path) -> Image.Image:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait
            raise InvalidArgument(f"{path} is not a file: give the path of a PNG or JPEG picture")
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidArgument(f"{path} does not exist: give the path of a PNG or JPEG picture") from error
    except OSError as error:
        raise LenetKerasError(f"{path} cannot be read: {error.strerror}") from error
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                frames = getattr(image, "n_frames", 1)
                # A JPEG with several (MPO) is a camera's: the first is the picture, others are previews or depth.
                if image.format == "PNG" and frames > 1:
                    raise InvalidArgument(f"{path} is an animation of {frames} frames: save one frame as a picture")
                return _to_grey(ImageOps.exif_transpose(image))
        except (InvalidArgument, MemoryError):
            raise
        except UnidentifiedImageError as error:
            raise InvalidArgument(f"{path} is not a PNG or JPEG picture, or only the beginning of one") from error
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise InvalidArgument(
                f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels, the most that is read: scale it down"
            ) from error
        except Exception as error:  # damage shows as OSError, SyntaxError, ValueError, struct.error and more
            cause = first_line(error)
            raise InvalidArgument(f"{path} is damaged or cut off: {cause}") from error


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        values = np.asarray(image, np.uint16)
        visible = values != image.info.get("transparency")
        return Image.fromarray(np.where(visible, (values / 257).round(), 0).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return ImageChops.multiply(rgba.convert("L"), rgba.getchannel("A"))
    return image.convert("L")
