"""Files: what is written is there whole or not at all, what is read is looked at first.

    writing.py     files and folders that appear whole or not at all
    regular.py     opens a file that anybody may have written: a regular one, of a size that was looked at
    texts.py       text, lines, CSV, whole numbers
    json_files.py  JSON: depth, digits and number of values
    arrays.py      .npy and .npz: headers, members, what they claim to unpack to
    images.py      JPEG, PNG, BMP: pixels, before any is decoded
    names.py       what a file may be called where names are listed
    matlab.py      cells of numbers in .mat
    turns.py       one process at a time

Nobody else in the package opens a file to read it, unless `tests/test_architecture.py` says why. Weights are the
exception that the format makes safe: safetensors and orbax are read in `icre_jax.engine`. SECURITY.md has every limit.
"""

from icre_jax.files.writing import new_folder, sync, sync_folder, whole_file, write_file

__all__ = ["new_folder", "sync", "sync_folder", "whole_file", "write_file"]
