"""Sound things that files to be attacked are made of; all of them are rendered or written by the project itself."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from icre_jax.data.prepared import PreparedDataset
from tests.attacks.harness import Attacks, Reader


@pytest.fixture(scope="session")
def sound(tree: Path, llcm_tree: Path, regdb_tree: Path, prepared: PreparedDataset) -> Mapping[str, Path]:
    """Places by name, to read only."""
    return {"sysu_mm01": tree, "llcm": llcm_tree, "regdb": regdb_tree, "prepared": prepared.folder.parent.parent}


@pytest.fixture(scope="session")
def attack(sound, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Reader], Attacks]:
    """A copy of the files of a reader, to be attacked; the sound ones are made once."""
    made: dict[str, Path] = {}

    def begin(reader: Reader) -> Attacks:
        name = "".join(letter if letter.isalnum() else "_" for letter in reader.name)
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "sound"
            made[name].mkdir()
            reader.make(made[name], sound)
        return Attacks(reader, made[name], made[name].with_name("attacked"))

    return begin
