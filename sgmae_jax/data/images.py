"""From the bytes of an image file to uint8 pixels, or a reason why not."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from sgmae_jax.data.errors import BadImage, DataError

# Named one by one: Pillow would else also try formats that start other programs
# (EPS runs Ghostscript) or that no data set uses.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset(
    ".jpg .jpeg .png .webp .gif .bmp .tif .tiff .ppm .pgm .pbm".split()
)
# Pillow's own limit, at which it only warns; here it is an error.
MAX_PIXELS = 89_478_485
_PNG = b"\x89PNG\r\n\x1a\n"
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_Taken = TypeVar("_Taken")


def decode_image(
    data: bytes, *, name: str, channels: int = 3
) -> UInt8[np.ndarray, "H W C"]:
    """Decodes one image file; the first frame of a moving one, upright.

    The orientation tag of EXIF is applied and colour profiles are not. 16-bit values
    keep their high byte. Without an alpha channel in the result, transparency is
    dropped and the colour below it shows.

    Args:
        data: the whole file, in one of `FORMATS`.
        name: what to call the image in messages.
        channels: 1 (grey), 3 (RGB) or 4 (RGB and alpha).

    Returns:
        The pixels; the array is read-only.

    Raises:
        BadImage: empty, of no known format, cut short, damaged, of more than
            `MAX_PIXELS` pixels, or of values without an agreed range (float).
        DataError: Pillow was told to take files that are cut short.
    """

    def pixels(image: Image.Image) -> np.ndarray:
        return set_channels(image, channels)

    return _decode(data, name, pixels)


def decode_picture(data: bytes, *, name: str) -> Image.Image:
    """Decodes one image file to RGB and leaves it with Pillow, loaded.

    Cropping it costs less than cropping an array, which Pillow has to fill and to read
    back; the pixels are those of `decode_image`.

    Args:
        data: the whole file, in one of `FORMATS`.
        name: what to call the image in messages.

    Raises:
        BadImage, DataError: as `decode_image`.
    """

    def picture(image: Image.Image) -> Image.Image:
        if image.mode == "RGB":
            return image
        return Image.fromarray(set_channels(image, 3))

    return _decode(data, name, picture)


def decode_mask(data: bytes, *, name: str) -> UInt8[np.ndarray, "H W"]:
    """Decodes the class of every pixel: the index of a palette, or the grey value.

    Args:
        data: the whole file, a PNG.
        name: what to call the mask in messages.

    Raises:
        BadImage: as `decode_image`, or no indices, or of more than 8 bits.
        DataError: as `decode_image`.
    """
    # Bit depth and colour type; Pillow stretches grey of 2 and 4 bits to 0 to 255.
    if data.startswith(_PNG) and data[24:26] in (b"\x02\0", b"\x04\0"):
        raise BadImage(name, f"a mask of {data[24]} bits: save the indices with 8")

    def indices(image: Image.Image) -> np.ndarray:
        if image.format != "PNG" or image.mode not in ("1", "L", "P"):
            raise BadImage(
                name,
                "a mask must be a PNG with an index of 8 bits a pixel (grey or "
                f"palette), this is {image.format} with {image.mode}",
            )
        return np.asarray(image).astype(np.uint8)

    return _decode(data, name, indices)


def _decode(data: bytes, name: str, take: Callable[[Image.Image], _Taken]) -> _Taken:
    """What `take` makes of an image that was loaded whole and turned upright."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, so that damaged images "
            "would be trained on as grey ones: something imported sets it; unset it"
        )
    if not data:
        raise BadImage(name, "empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                reason = f"{width}x{height} is more than {MAX_PIXELS} pixels"
                raise BadImage(name, reason)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return take(image)
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(name, f"not an image of format {', '.join(FORMATS)}") from None
    # Damaged files make Pillow's readers raise nearly anything: OSError, SyntaxError,
    # struct.error, KeyError, MemoryError, …
    except Exception as error:
        raise BadImage(name, f"{type(error).__name__}: {error}") from error


def set_channels(image: Image.Image, channels: int) -> UInt8[np.ndarray, "H W C"]:
    """Returns the pixels of an image of any mode with 1, 3 or 4 channels.

    Raises:
        ValueError: a mode without an agreed way to 8 bits.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("integer pixels outside of 16 bits")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode in ("P", "PA"):
        # Through RGBA, or Pillow warns about palettes with transparent entries.
        image = image.convert("RGBA")
    elif image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")
    pixels = np.asarray(image.convert(MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)
