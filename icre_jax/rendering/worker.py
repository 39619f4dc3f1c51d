"""A process that renders some identities for `writers.py`: one JSON job as its argument, one pid per line when done."""

import json
import sys
from pathlib import Path

from icre_jax.rendering.layouts import LAYOUTS
from icre_jax.rendering.settings import SyntheticSettings
from icre_jax.rendering.writers import write_person


def main(job: dict) -> None:
    """Render the identities `pids` of a layout into `folder`."""
    size = tuple(job["settings"].pop("image_size"))
    settings = SyntheticSettings(**job["settings"], image_size=size)
    shots = LAYOUTS[job["layout"]](settings).shots
    for pid in job["pids"]:
        write_person(Path(job["folder"]), settings, pid, shots[pid])
        print(pid, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
