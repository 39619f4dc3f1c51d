"""What a program compiled for a TPU reads from its large memory (HBM) and writes to it, by the layouts in its text.

XLA's own count of bytes adds up the operands and results of all operations, wherever they lie. The compiler keeps much
of them in the chip's fast memory, which it says in their layouts ("S(1)"), and moves what does not stay there by copies
of their own. Counted here are these copies, and what operations read from HBM and write to it themselves. An array
takes whole tiles, as the layout says: of 64 channels that lie in lanes of 128, half is filling, which is moved too.

An operation may read only a part of an array; the whole is counted. Loops are counted once.
"""

import collections
import re

import numpy as np

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%(\S+) = (.*?) ([a-z][\w-]*)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[suf]\d+\w*|bf16)\[([\d,]*)\](\{[^}]*\})?")
# The order of the axes, the last in memory first, and the tile of the last ones: "{3,0,2,1:T(8,128)(2,1)S(1)}".
_TILES = re.compile(r"\{([\d,]+):T\(([\d,]+)\)")
_NAME = re.compile(r"%([\w.-]+)")
_FAST = "S(1)"
_MOVES = {"copy-start": 0, "slice-start": 1}  # where among its results the copy is
# These touch no memory, or are the end of something that was counted at its start.
_VIEWS = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"}

_Arrays = list[tuple[str, int, bool]]  # type, bytes, in the fast memory


def hbm_traffic(text: str) -> dict[str, int]:
    """Bytes to and from HBM in one run of a compiled program on one device, by type of number; see the module.

    Args:
      text: `compiled.as_text()`, of a program for a TPU.
    """
    known: dict[str, _Arrays] = {}
    found: collections.Counter[str] = collections.Counter()
    entry = text[text.find("\nENTRY ") :] if "\nENTRY " in text else text
    for line in entry.splitlines():
        instruction = _INSTRUCTION.match(line)
        if instruction is None:
            continue
        name, shape, operation, rest = instruction.groups()
        results = known[name] = _arrays(shape)
        if operation in _VIEWS or operation.endswith("-done"):
            continue
        operands = [array for operand in _NAME.findall(rest.split("), ")[0]) for array in known.get(operand, [])]
        if operation in _MOVES and len(results) > 1:
            moved = results[_MOVES[operation]]
            other = results[1 - _MOVES[operation]]
            found[moved[0]] += moved[1] * ((not moved[2]) + (not other[2]))
            continue
        for dtype, size, fast in operands + results:
            if not fast:
                found[dtype] += size
    return dict(found)


def _arrays(shape: str) -> _Arrays:
    return [
        (dtype, _size_of(dtype) * int(np.prod(_in_memory(lengths, layout), dtype=np.int64)), _FAST in layout)
        for dtype, lengths, layout in _ARRAY.findall(shape)
    ]


def _in_memory(lengths: str, layout: str) -> list[int]:
    """Lengths of the axes, those that are cut into tiles rounded up to whole ones."""
    sizes = _numbers(lengths)
    tiles = _TILES.match(layout)
    if tiles:
        for axis, tile in zip(_numbers(tiles[1]), reversed(_numbers(tiles[2])), strict=False):
            sizes[axis] = -(-sizes[axis] // tile) * tile
    return sizes


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _size_of(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return int(bits[0]) // 8 if bits else 1
