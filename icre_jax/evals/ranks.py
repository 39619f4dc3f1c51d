"""Ranks of the true matches in one block of similarities [Q, G], and what follows from them: first rank, AP, INP.

Two ways to the same answer: `measure`, which is fast and says where ties could mislead it, and `measure_keys` for those
rows, which breaks ties by position.
"""

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
KeyArray = npt.NDArray[np.uint64]


def sort_keys(similarity: Float32Array, removed: BoolArray, match: BoolArray, position: IntArray) -> KeyArray:
    """[Q, G] integers in ranking order: similarity downwards, then `position` upwards, removed items last.

    Sorting them is an exact stable sort, and the lowest bit says whether the item is a true match. Layout: 32 bits of
    similarity, 31 of position, 1 of match.
    """
    bits = np.add(similarity, np.float32(0)).view(np.uint32)  # + 0 turns -0.0 into 0.0, which must tie
    # Negative floats already grow with their magnitude; the others are reversed and put in front of them.
    descending = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))
    descending[removed] = 0xFFFFFFFF
    keys = descending.astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= position.astype(np.uint64) << np.uint64(1)
    keys |= match
    return keys


def measure(
    block: Float32Array, match: IntArray, seen: BoolArray, id_starts: IntArray | None
) -> tuple[IntArray, Float64Array, Float64Array, BoolArray]:
    """Rank of the first true match, AP and INP, and where a tie of a true match makes them unreliable; each [Q].

    One sort of bare similarities and a binary search for the matches alone: several times as fast as `measure_keys`.

    Args:
      block: [Q, G] similarities, -inf for removed items.
      match: [Q, M] columns of the true matches, anything where not `seen` [Q, M]; every row has one.
      id_starts: first column of each id, if the rank of the first match counts ids, not images.
    """
    num_gallery = block.shape[1]
    wanted = np.take_along_axis(block, match, axis=1)
    wanted[~seen] = -np.inf
    wanted = -np.sort(-wanted, axis=1)
    count = np.count_nonzero(seen, axis=1)
    nth = np.arange(1, wanted.shape[1] + 1)
    counts = nth <= count[:, None]

    ordered = np.sort(block, axis=1).ravel()
    begin = np.arange(len(block))[:, None] * num_gallery
    below = np.zeros(wanted.shape, np.int64)  # items of the row that are not above the match, itself among them
    step = 1 << (num_gallery.bit_length() - 1)
    while step:
        further = below + step
        reached = ordered.take(begin + np.minimum(further, num_gallery) - 1) <= wanted
        below = np.where(reached & (further <= num_gallery), further, below)
        step >>= 1
    tied = ((ordered.take(begin + np.maximum(below - 2, 0)) == wanted) & (below > 1) & counts).any(axis=1)

    rank = num_gallery - below + 1
    ap = np.where(counts, nth / rank, 0).sum(axis=1) / count
    inp = count / np.take_along_axis(rank, count[:, None] - 1, axis=1)[:, 0]
    first = rank[:, 0]
    if id_starts is not None:
        first = np.count_nonzero(np.maximum.reduceat(block, id_starts, axis=1) > wanted[:, :1], axis=1) + 1
    return first, ap, inp, tied


def measure_keys(keys: KeyArray, id_starts: IntArray | None) -> tuple[IntArray, Float64Array, Float64Array]:
    """The same from keys, exact for ties as well; every row has a match.

    With `id_starts` (first column of each id) the rank counts ids, not images.
    """
    ranked = np.sort(keys, axis=1)
    row, column = np.nonzero((ranked & np.uint64(1)).astype(bool))  # row by row, so ranks ascend within a query
    count = np.bincount(row, minlength=len(keys))
    begin = np.cumsum(count) - count
    nth = np.arange(len(row)) - begin[row] + 1
    ap = np.add.reduceat(nth / (column + 1), begin) / count
    inp = count / (column[begin + count - 1] + 1)
    first = column[begin]
    if id_starts is not None:
        ahead = keys < np.take_along_axis(ranked, first[:, None], axis=1)
        first = np.logical_or.reduceat(ahead, id_starts, axis=1).sum(axis=1)
    return first + 1, ap, inp
