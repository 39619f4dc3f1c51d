"""A tree that says of itself that its people were rendered: it is compared with its own settings."""

import collections
from pathlib import Path

from icre_jax.data.images import SUFFIXES
from icre_jax.data.layouts.lists import LONGEST_LIST
from icre_jax.data.verification.report import Report
from icre_jax.datasets import RENDERED_MARK
from icre_jax.errors import InputError, UnreadableError
from icre_jax.files.json_files import read_json_object
from icre_jax.files.texts import read_text
from icre_jax.rendering import SyntheticSettings
from icre_jax.rendering.layouts import LAYOUTS


def is_rendered(data_dir: Path) -> bool:
    """Whether the tree holds the record that `icre_jax.rendering` leaves."""
    return (data_dir / RENDERED_MARK).is_file()


def compare_with_settings(dataset: str, data_dir: Path, report: Report) -> None:
    """Count the images of every top folder, and read the lists; both must be what the tree's own settings make."""
    report.notes.append("The people are rendered: this is not the published data set, and its counts do not apply.")
    try:
        record = read_json_object(data_dir / RENDERED_MARK)
        name = record.pop("layout")
        record.pop("renderer_version")
        settings = SyntheticSettings(**record | {"image_size": tuple(record["image_size"])})
        if name != dataset:
            report.errors.append(f"{RENDERED_MARK} says that this is a rendered {name}, not {dataset}")
            return
        layout = LAYOUTS[name](settings)
    except UnreadableError as error:
        report.errors.append(f"{RENDERED_MARK} is damaged ({error.reason})")
        return
    except (ValueError, TypeError, KeyError, AttributeError, InputError) as error:
        report.errors.append(f"{RENDERED_MARK} is damaged ({error})")
        return
    expected = collections.Counter(shot.path.parts[0] for shots in layout.shots.values() for shot in shots)
    for folder, number in sorted(expected.items()):
        files = (data_dir / folder).rglob("*")
        report.count(f"{folder} (rendered)", "images", sum(f.suffix.lower() in SUFFIXES for f in files), number)
    for path, text in layout.texts.items():
        try:
            same = read_text(data_dir / path, longest_line=LONGEST_LIST) == text
        except UnreadableError:
            continue  # named by the survey of the lists
        if not same:
            report.errors.append(f"{path} is not the list that the settings of the rendered people make")
