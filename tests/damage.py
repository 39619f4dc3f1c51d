"""Files damaged as disks and copies damage them, one at a time; whoever reads them refuses, or notices nothing."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from icre_jax.errors import InputError


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def flip(file: Path, position: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def damages(content: bytes, draws: random.Random, num_flips: int) -> Iterator[tuple[str, bytes | None]]:
    """What becomes of a file: words and bytes, None where it is gone. Of flipped bits `num_flips` beside three."""
    last = len(content) - 1
    for position in (0, last // 2, last, *(draws.randrange(len(content)) for _ in range(num_flips))):
        bit = draws.randrange(8)
        flipped = bytearray(content)
        flipped[position] ^= 1 << bit
        yield f"bit {bit} of byte {position}", bytes(flipped)
    yield "deleted", None
    yield "emptied", b""
    yield "one byte less", content[:-1]
    yield "half", content[: len(content) // 2]
    yield "one byte more", content + b"\0"
    yield "garbled", draws.randbytes(len(content))


def check_damages(
    folder: Path,
    read: Callable[[], Any],
    *,
    num_flips: int = 1,
    seed: int = 0,
    names: list[str] | None = None,
    refused: tuple[type[BaseException], ...] = (InputError,),
) -> Counter[str]:
    """Damage every file of a folder in every way and read; the folder is whole again after that.

    Args:
      folder: of the files; it is changed and put right again.
      read: everything that anybody reads of it, to be compared with ==.
      num_flips: random bits of each file, beside one of its first, of its middle and of its last byte.
      seed: of these.
      names: of the files; None for all.
      refused: what `read` raises where it refuses.

    Returns:
      File -> how many damages of it had no effect; of files that are always refused there is nothing.
    """
    expected, draws, without_effect = read(), random.Random(seed), Counter[str]()
    for name in files_of(folder) if names is None else names:
        file = folder / name
        content = file.read_bytes()
        for words, damaged in damages(content, draws, num_flips):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            try:
                assert read() == expected, f"{name}, {words}: another result"
                without_effect[name] += 1
            except refused:
                pass
            file.write_bytes(content)
    return without_effect
