"""Embeds images with StableHLO files and with nothing of this package.

    python -I stablehlo_reader.py FOLDER IMAGES.npz EMBEDDINGS.npz

`icre_jax.engine.stablehlo` starts it to see that the files need nobody else. IMAGES holds uint8 [B, H, W, 3] under the
name of a modality; EMBEDDINGS gets "<modality>" of all of them and "<modality>_alone" of the first alone. A file that
is not the one which `stablehlo.json` beside it lists is not run.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

# Importing one of these is an error here, also where it is installed.
FORBIDDEN = ("icre_jax", "configs", "flax", "orbax")


def main(folder: Path, asked: Path, answered: Path) -> None:
    """The whole script."""
    for name in FORBIDDEN:
        sys.modules[name] = None  # type: ignore[assignment]  # as Python documents it: the import then fails
    import numpy as np
    from jax import export

    listed = json.loads((folder / "stablehlo.json").read_text(encoding="utf-8"))["files"]
    embeddings: dict[str, Any] = {}
    with np.load(asked, allow_pickle=False) as images:
        for modality in images.files:
            name = f"{modality}.stablehlo"
            content = (folder / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != listed[name]["sha256"]:
                sys.exit(f"{name} is not the file that stablehlo.json lists, it has another hash")
            program = export.deserialize(bytearray(content))
            embeddings[modality] = np.asarray(program.call(images[modality]))
            embeddings[f"{modality}_alone"] = np.asarray(program.call(images[modality][:1]))
    np.savez(answered, **embeddings)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
