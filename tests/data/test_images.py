"""Odd images decode to what they mean; damaged ones say why they do not."""

from __future__ import annotations

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from sgmae_jax.data import BadImage, DataError, decode_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey_in_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


def palette(transparent: bytes | int | None = None) -> tuple[bytes, np.ndarray]:
    colours = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
    index = RNG.integers(0, 4, (6, 9), dtype=np.uint8)
    image = Image.frombytes("P", (9, 6), index.tobytes())
    image.putpalette(colours.ravel().tolist())
    options = {} if transparent is None else {"transparency": transparent}
    return encoded(image, **options), colours[index]


def cmyk() -> tuple[bytes, np.ndarray]:
    inks = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    ink = inks.astype(float)
    # The share of light that one ink and black let through, one after the other.
    expected = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    return encoded(Image.fromarray(inks, mode="CMYK"), "TIFF"), expected


def rotated(orientation: int) -> tuple[bytes, np.ndarray]:
    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(RGB), exif=exif), upright[orientation]


def moving_gif() -> tuple[bytes, np.ndarray]:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    return data, np.full((4, 5, 3), (255, 0, 0))


def png_of_16_bits(colour: bool) -> tuple[bytes, np.ndarray]:
    """Written by hand: Pillow does not write colour PNGs of 16 bits."""
    values = RNG.integers(0, 2**16, (6, 9, 3 if colour else 1), dtype=np.uint16)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 9, 6, 16, 2 if colour else 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return data, np.broadcast_to(values >> 8, (6, 9, 3))


ODD = {
    "colour": (encoded(Image.fromarray(RGB)), RGB),
    "webp": (encoded(Image.fromarray(RGB), "WEBP", lossless=True), RGB),
    "bmp": (encoded(Image.fromarray(RGB), "BMP"), RGB),
    "ppm": (encoded(Image.fromarray(RGB), "PPM"), RGB),
    "grey": (encoded(Image.fromarray(GREY)), grey_in_rgb(GREY)),
    "black and white": (
        encoded(Image.fromarray(GREY > 99)),
        grey_in_rgb(255 * (GREY > 99)),
    ),
    "grey and alpha": (
        encoded(Image.merge("LA", [Image.fromarray(GREY)] * 2)),
        grey_in_rgb(GREY),
    ),
    "colour and alpha": (
        encoded(Image.fromarray(np.concatenate([RGB, GREY[..., None]], -1))),
        RGB,
    ),
    "palette": palette(),
    "palette, one clear entry": palette(2),
    "palette, alpha of each": palette(bytes([0, 80, 160, 255])),
    "grey of 16 bits": png_of_16_bits(colour=False),
    "colour of 16 bits": png_of_16_bits(colour=True),
    "grey tiff of 16 bits": (
        encoded(Image.fromarray(GREY.astype(np.uint16) * 256 + 77), "TIFF"),
        grey_in_rgb(GREY),
    ),
    "grey tiff of 32 bits": (
        encoded(Image.fromarray(GREY.astype(np.int32) * 256), "TIFF"),
        grey_in_rgb(GREY),
    ),
    "1x1": (encoded(Image.fromarray(RGB[:1, :1])), RGB[:1, :1]),
    "CMYK": cmyk(),
    "moving GIF": moving_gif(),
    **{f"EXIF orientation {tag}": rotated(tag) for tag in range(1, 9)},
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.fault(11)
def test_odd_images_equal_their_reference(name):
    data, expected = ODD[name]
    image = decode_image(data, name=name)
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    # CMYK rounds; all the rest is exact.
    assert np.abs(image - expected.astype(float)).max() <= (1 if name == "CMYK" else 0)


@pytest.mark.fault(11)
def test_cmyk_jpeg_with_inverted_inks_is_not_a_negative():
    white = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    image = decode_image(encoded(white, "JPEG"), name="cmyk.jpg")
    assert image.min() >= 250


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_of_every_odd_image(channels):
    for name, (data, expected) in ODD.items():
        image = decode_image(data, name=name, channels=channels)
        assert image.shape == (*expected.shape[:2], channels)


def test_alpha_and_grey_values():
    both = np.concatenate([RGB, GREY[..., None]], -1)
    data = encoded(Image.fromarray(both))
    np.testing.assert_array_equal(decode_image(data, name="x", channels=4), both)
    opaque = decode_image(ODD["colour"][0], name="x", channels=4)
    assert (opaque[..., 3] == 255).all()
    clear, _ = ODD["palette, alpha of each"]
    alphas = np.unique(decode_image(clear, name="x", channels=4)[..., 3])
    assert alphas.tolist() == [0, 80, 160, 255]
    luma = decode_image(ODD["colour"][0], name="x", channels=1)[..., 0]
    weighted = RGB @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma - weighted).max() <= 1


PHOTO = np.kron(RNG.integers(0, 256, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
JPEG = encoded(Image.fromarray(PHOTO), "JPEG", quality=90)
PROGRESSIVE = encoded(Image.fromarray(PHOTO), "JPEG", quality=90, progressive=True)
PNG = encoded(Image.fromarray(PHOTO))
FLIPPED = PNG[: len(PNG) // 2] + bytes([PNG[len(PNG) // 2] ^ 1])
FLIPPED += PNG[len(FLIPPED) :]


def bomb() -> bytes:
    """A PNG header that claims 20000x20000 pixels."""
    data = bytearray(ODD["colour"][0])
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


BAD = {
    "empty": (b"", "empty file"),
    "text": (b"this is not an image\n" * 20, "not an image"),
    "random bytes": (RNG.bytes(2000), "not an image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an im"),
    "three quarters of a JPEG": (JPEG[: len(JPEG) * 3 // 4], "truncated"),
    "half a progressive JPEG": (PROGRESSIVE[: len(PROGRESSIVE) // 2], "truncated"),
    "half a PNG": (PNG[: len(PNG) // 2], "truncated"),
    "WebP without its end": (encoded(Image.fromarray(PHOTO), "WEBP")[:-99], "decoder"),
    "GIF without its end": (encoded(Image.fromarray(PHOTO), "GIF")[:-99], "truncated"),
    "TIFF without its end": (
        encoded(Image.fromarray(PHOTO), "TIFF")[:-99],
        "truncated",
    ),
    "flipped bit in a PNG": (FLIPPED, "Error"),
    "JPEG header alone": (JPEG[:20], "not an image"),
    "PNG header alone": (PNG[:30], "not an image"),
    "bomb": (bomb(), "exceeds limit"),
    "float": (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floating"),
    "32 bits": (
        encoded(Image.fromarray(GREY.astype(np.int32) * 2**20), "TIFF"),
        "16 bits",
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.fault(11)
def test_bad_images_say_why(name):
    data, reason = BAD[name]
    with pytest.raises(BadImage, match=reason) as caught:
        decode_image(data, name="where/it/is.jpg")
    assert caught.value.name == "where/it/is.jpg"
    assert caught.value.reason
    assert str(caught.value).startswith("where/it/is.jpg: ")


@pytest.mark.parametrize("whole", [JPEG, PROGRESSIVE], ids=["baseline", "progressive"])
@pytest.mark.fault(11)
def test_a_jpeg_cut_anywhere_is_bad(whole):
    for length in range(0, len(whole), 7):
        with pytest.raises(BadImage):
            decode_image(whole[:length], name="cut.jpg")


@pytest.mark.fault(11)
def test_bombs_are_refused_whatever_limit_pillow_has(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(BadImage, match="20000x20000 is more than"):
        decode_image(bomb(), name="bomb.png")


@pytest.mark.fault(11)
def test_pillow_must_not_be_told_to_take_truncated_files(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="LOAD_TRUNCATED_IMAGES"):
        decode_image(JPEG, name="x.jpg")


def test_decoding_from_many_threads_agrees():
    results: list[bool] = []

    def work() -> None:
        for name, (data, expected) in ODD.items():
            image = decode_image(data, name=name).astype(float)
            results.append(bool(np.abs(image - expected).max() <= 1))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 * len(ODD) and all(results)
