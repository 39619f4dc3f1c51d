"""Image files: damaged, explosive, and none at all."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icre_jax.data.collection import collect
from icre_jax.data.reading import read_batches
from icre_jax.data.verification.images import inspect
from icre_jax.files.images import MAX_PIXELS
from tests.attacks.harness import Reader

KINDS = {
    "rgb.jpg": ("RGB", "JPEG", {}), "progressive.jpg": ("RGB", "JPEG", {"progressive": True}),
    "grey.jpg": ("L", "JPEG", {}), "rgb.png": ("RGB", "PNG", {}), "palette.png": ("P", "PNG", {}),
    "deep.png": ("I;16", "PNG", {}), "rgb.bmp": ("RGB", "BMP", {}), "grey.bmp": ("L", "BMP", {}),
}  # fmt: skip


def make(folder: Path, _) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 24, 3), np.uint8)
    for name, (mode, form, how) in KINDS.items():
        image = Image.fromarray(pixels)
        if mode == "I;16":
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
        elif mode != "RGB":
            image = image.convert(mode)
        image.save(folder / name, form, **how)


def read(folder: Path) -> None:
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        inspect(path, MAX_PIXELS)  # as `icre_jax.verify`
    for batch in read_batches(collect(folder, "visible").files, (32, 16), 8):
        assert batch.shape[1:] == (32, 16, 3)
        assert batch.dtype == np.uint8


READERS = (Reader("images", make, read),)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(width: int, height: int, channels: int) -> bytes:
    """Compressed rows of an image without an end, a row at a time."""
    packer, row = zlib.compressobj(1), b"\0" * (width * channels + 1)
    return b"".join(packer.compress(row) for _ in range(height)) + packer.flush()


def bmp(width: int, height: int, bits: int = 24, colours: int = 0, offset: int = 54) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, colours, 0)
    return struct.pack("<2sIHHI", b"BM", 54, 0, 0, offset) + info + b"\0" * 64


def other(form: str, **how) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, form, **how)
    return stream.getvalue()


def exif_bomb() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "A" * 60_000
    exif[0x0112] = 6
    return other("JPEG", exif=exif)


BY_HAND = {
    "a billion pixels, nothing behind": png(2**15, 2**15),
    "the largest size that a header can say": png(2**31 - 1, 2**31 - 1),
    "no width": png(0, 16),
    "13,300 squared in RGBA": png(13_300, 13_300, chunk(b"IDAT", zeros(13_300, 13_300, 4)), colour=6),
    "12,000 squared in 16-bit RGB": png(12_000, 12_000, chunk(b"IDAT", zeros(12_000, 12_000, 6)), depth=16),
    "a text chunk that unpacks to 128 MiB": png(
        8, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 2**27, 1)), chunk(b"IDAT", zeros(8, 8, 3))
    ),
    "a colour profile that unpacks to 64 MiB": png(
        8, 8, chunk(b"iCCP", b"k\0\0" + zlib.compress(b"\0" * 2**26, 1)), chunk(b"IDAT", zeros(8, 8, 3))
    ),
    "ten thousand chunks": png(8, 8, *[chunk(b"tEXt", b"k\0v")] * 10_000, chunk(b"IDAT", zeros(8, 8, 3))),
    "a chunk of 4 GiB": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**32 - 1) + b"IHDR",
    "an animation of a million frames": png(
        8, 8, chunk(b"acTL", struct.pack(">II", 10**6, 0)), chunk(b"IDAT", zeros(8, 8, 3))
    ),
    "a bitmap of two billion rows": bmp(1, 2**31 - 1),
    "a bitmap upside down": bmp(8, -(2**31)),
    "a bitmap of a billion pixels": bmp(2**15, 2**15),
    "a palette of four billion colours": bmp(8, 8, bits=8, colours=2**32 - 1),
    "pixels that begin beyond the end": bmp(8, 8, offset=2**31),
    "a JPEG that says 65,500 squared": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\3\1\x22\0\2\x11\1\3\x11\1\xff\xd9",
    "a JPEG that ends after its mark": b"\xff\xd8\xff",
    "large EXIF, turned": exif_bomb(),
    "a GIF": other("GIF"), "a TIFF": other("TIFF"), "a WebP": other("WEBP"), "an icon": other("ICO"),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "HTML": b"<script>alert(1)</script>", "a pickle": b"cos\nsystem\n(S'true'\ntR.",
    "an archive": b"PK\3\4" + b"\0" * 99, "a program": b"\x7fELF" + b"\0" * 99, "zeros": b"\0" * 9999,
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files(reader, attack):
    attacks = attack(reader)
    attacks.places()
    for number in range(80):
        attacks.mutant(number)
    assert attacks.failures == {}


def test_by_hand(attack):
    attacks = attack(READERS[0])
    for name, content in BY_HAND.items():
        for file in ("rgb.png", "rgb.jpg")[: 1 if len(content) > 10**5 else 2]:
            attacks.by_hand(name, file, content)
    assert attacks.failures == {}
    assert attacks.most_megabytes < 1024
    accepted = {name for name, outcome in attacks.outcomes.items() if outcome.said is None}
    assert len(accepted) < len(BY_HAND) / 3, accepted


def test_eight_bombs_at_a_time_stay_below_the_limit(attack):
    """Threads decode several images at a time."""
    attacks = attack(READERS[0])
    bomb = BY_HAND["13,300 squared in RGBA"]
    for name in KINDS:
        (attacks.folder / name).write_bytes(bomb)
    outcome = attacks.by_hand("eight at a time", "rgb.png", bomb)
    assert outcome.wrong == ""
    assert outcome.said is not None
