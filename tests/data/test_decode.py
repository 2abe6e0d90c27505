import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps

from lasem.data.decode import DamagedError, decode, image_size
from lasem.errors import DataError

from .fixture import png, random_images


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def test_pixels_come_as_they_were_written() -> None:
    pixels = random_images(1)[0]
    assert torch.equal(decode(png(pixels), "here", channels=3), pixels)
    assert image_size(png(pixels), "here") == (4, 5)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_pixel_is_converted(mode: str, channels: Literal[1, 3]) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 5), 200 * 256 + 17, dtype=np.uint16))
    else:
        image = Image.new("RGB", (5, 4), (200, 200, 200)).convert(mode)
    decoded = decode(encoded(image, kind), "here", channels=channels)
    assert (decoded.shape, decoded.dtype) == ((channels, 4, 5), torch.uint8)
    if mode != "1":  # black-and-white images are dithered
        assert (decoded.int() - 200).abs().max() <= 4  # a palette has no grey of 200


def test_a_palette_with_transparency_in_bytes_is_converted_without_a_warning() -> None:
    image = Image.new("P", (3, 2))
    image.putpalette([10, 20, 30, 40, 50, 60])
    decoded = decode(encoded(image, transparency=b"\x80\xff"), "here", channels=3)
    assert decoded[:, 0, 0].tolist() == [132, 137, 142]  # half of it, and half of white
    assert decode(encoded(image), "here", channels=3)[:, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_lies_over_white(channels: Literal[1, 3], kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    pixels[0, 0] = 9, 9, 9, 0
    if channels == 1:
        pixels[..., 1:3] = pixels[..., :1]
    image = Image.fromarray(pixels)
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :channels] * alpha + 255 * (1 - alpha)
    found = [
        decode(
            encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})),
            "here",
            channels=channels,
        )
    ]
    if channels == 1 and kind == "PNG":
        found.append(decode(encoded(image.convert("LA"), kind), "here", channels=1))
    for decoded in found:
        assert np.abs(decoded.permute(1, 2, 0).numpy() - expected).max() <= 0.5
        assert (decoded[:, 0, 0] == 255).all()


@pytest.mark.parametrize(("mode", "hole"), [("1", 0), ("L", 7), ("RGB", (7, 8, 9)), ("P", 1)])
def test_a_colour_that_a_file_calls_transparent_is_white(mode: str, hole: Any) -> None:
    image = Image.new(mode, (3, 2), hole)
    if mode == "P":
        image.putpalette([10, 20, 30, 40, 50, 60])
    assert decode(encoded(image, transparency=hole), "here", channels=3)[:, 0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_opaque_keeps_its_bits(mode: str, channels: Literal[1, 3]) -> None:
    image = Image.fromarray(random_images(1, (3, 9, 8))[0].permute(1, 2, 0).numpy()).convert(mode)
    plain = np.asarray(image.convert("RGBA").convert("L" if channels == 1 else "RGB")).reshape(9, 8, channels)
    kind = "TIFF" if mode == "PA" else "PNG"
    assert np.array_equal(decode(encoded(image, kind), "here", channels=channels).permute(1, 2, 0).numpy(), plain)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_photograph_is_turned_upright(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(random_images(1, (1, 16, 8))[0, 0].numpy()), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("L"))
    assert np.array_equal(decode(data, "here", channels=1)[0].numpy(), expected)
    assert image_size(data, "here") == expected.shape


def test_a_header_is_read_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert image_size(png(random_images(1)[0]), "here") == (4, 5)


def test_resizing() -> None:
    assert decode(png(random_images(1)[0]), "here", channels=1, size=7).shape == (1, 7, 7)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    whole = png(random_images(1, (3, 40, 40))[0])
    for damaged in (b"no image", b"", whole[:-200], whole[:20], whole[:60] + bytes(50) + whole[110:]):
        with pytest.raises(DataError, match=r"row 3 cannot: .*Replace or remove it"):
            decode(damaged, "row 3", channels=3)
    with pytest.raises(DataError, match="floating-point"):
        decode(encoded(Image.new("F", (3, 3)), "TIFF"), "here", channels=3)
    for values in ([-1, 3], [0, 65536]):
        with pytest.raises(DataError, match=r"its pixels go from .* to .*, not from 0 to 65,535"):
            decode(encoded(Image.fromarray(np.array([values], dtype=np.int32)), "TIFF"), "here", channels=3)
    with pytest.raises(DataError, match=r"no\.png, but there is no such file"):
        decode(tmp_path / "no.png", str(tmp_path / "no.png"), channels=3)


def test_a_decompression_bomb_is_refused_from_its_header() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (8001, 10_000, 30_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        for read in (lambda data: decode(data, "bomb.png", channels=3), lambda data: image_size(data, "bomb.png")):
            with pytest.raises(DataError, match=r"bomb\.png cannot: .*pixels"):
                read(bomb)
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 8, 325: 0}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    tiles = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    with pytest.raises(DataError, match="30000x30000 pixels"):  # of a tile that the image is cut from
        image_size(tiles, "bomb.tif")


def test_postscript_is_given_to_no_program_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[object] = []
    monkeypatch.setattr("subprocess.check_call", lambda *command, **_: ran.append(command))
    monkeypatch.setattr("subprocess.Popen", lambda *command, **_: ran.append(command))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    for data in (eps, b"%!PS\n" + eps[24:], b"\xc5\xd0\xd3\xc6" + bytes(28) + eps):
        (tmp_path / "x.png").write_bytes(data)
        for source in (data, tmp_path / "x.png"):
            for read in (lambda s: decode(s, "x.png", channels=3), lambda s: image_size(s, "x.png")):
                with pytest.raises(DamagedError, match=r"x\.png cannot: it is none of AVIF, BMP"):
                    read(source)
    assert not ran


@pytest.mark.parametrize("kind", ["ICO", "ICNS"])
def test_icons_which_may_hide_larger_images_are_refused(kind: str) -> None:
    with pytest.raises(DamagedError, match="it is none of"):
        decode(encoded(Image.new("RGB", (64, 64)), kind), "icon.png", channels=3)


@pytest.mark.parametrize("options", [{}, {"quality": 95}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("side", [8, 17, 100])
def test_a_jpeg_that_lacks_only_its_end_mark_is_decoded(side: int, options: dict[str, Any], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG", **options)
    expected = decode(whole, "here", channels=3)
    for num_cut in (1, 2):
        (tmp_path / "x.jpg").write_bytes(whole[:-num_cut])
        for source in (whole[:-num_cut], tmp_path / "x.jpg"):
            assert torch.equal(decode(source, "here", channels=3), expected)
    for num_cut in (12, 20, 50, len(whole) // 2):
        with pytest.raises(DamagedError, match=r"(?i)truncated|broken"):
            decode(whole[:-num_cut], "here", channels=3)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for place in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(DamagedError, match="it is a folder, a pipe or a device"):
            decode(place, "it", channels=3)
