"""The size of an image, from the first bytes of its file: what decoding it will cost."""

from __future__ import annotations

import struct

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Markers without a segment (ITU-T T.81, B.1.1.3), those after which no frame begins, and the frames' own.
_ALONE = {0x01, *range(0xD0, 0xD9)}
_LAST = {0xD9, 0xDA}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def count_pixels(content: bytes) -> int:
    """Return width times height of a PNG or JPEG file, as its decoder will find them; 0 for anything else.

    >>> count_pixels(_PNG + struct.pack(">I4sII", 13, b"IHDR", 40, 30))
    1200
    """
    if content.startswith(_PNG) and len(content) >= 24:
        width, height = struct.unpack_from(">II", content, 16)  # the first chunk (PNG specification, 11.2.1)
        return int(width * height)
    if content.startswith(_JPEG):
        return _jpeg_pixels(content)
    return 0


def _jpeg_pixels(content: bytes) -> int:
    # Like libjpeg: whatever stands between segments is skipped, and the first frame counts.
    position = content.find(b"\xff", 2)
    while 0 <= position < len(content):
        marker = content[position]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _LAST or position + 8 > len(content):
            return 0
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", content, position + 4)
            return int(width * height)
        if marker not in _ALONE and marker != 0:
            position += struct.unpack_from(">H", content, position + 1)[0]
        position = content.find(b"\xff", position + 1)
    return 0
