"""The one function: layout, lists and counts by the data set's own module, then every image."""

from pathlib import Path

from icre_jax.data.verification import hitsz_vcm, llcm, manifest, regdb, sysu_mm01
from icre_jax.data.verification.images import Progress, check_images
from icre_jax.data.verification.rendered import compare_with_settings, is_rendered
from icre_jax.data.verification.report import Report
from icre_jax.datasets import CARDS, HITSZ_VCM, LLCM, MANIFEST, REGDB, SYSU_MM01
from icre_jax.errors import InputError
from icre_jax.files.images import MAX_PIXELS, require_max_pixels

CHECKS = {
    SYSU_MM01.name: sysu_mm01.check,
    LLCM.name: llcm.check,
    REGDB.name: regdb.check,
    HITSZ_VCM.name: hitsz_vcm.check,
    MANIFEST.name: manifest.check,
}


def verify(
    dataset: str,
    data_dir: Path,
    *,
    trial: int | None = None,
    num_workers: int,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> Report:
    """Check a data set as it lies on disk.

    Args:
      dataset: a key of `CHECKS`.
      data_dir: its root.
      trial: of RegDB, the one to check; None for all ten.
      num_workers: threads that decode.
      max_pixels: of an image, up to `HIGHEST_MAX_PIXELS`; one of more is an error, and is not decoded.
      progress: called with (images checked, images in all).

    Returns:
      Everything that was found.

    Raises:
      InputError: no folder `data_dir`, no such data set or trial, no thread, or such a number of pixels.
    """
    if dataset not in CHECKS:
        raise InputError(f"Unknown data set {dataset!r}; allowed are {', '.join(CHECKS)}.")
    if trial is not None and trial not in CARDS[dataset].trials:
        raise InputError(f"trial is {trial}; allowed for {dataset}: {CARDS[dataset].describe_trials()}.")
    if num_workers < 1:
        raise InputError(f"num_workers is {num_workers}; allowed: 1 or more.")
    require_max_pixels(max_pixels, "max_pixels")
    report = Report(dataset, str(data_dir))
    rendered = is_rendered(data_dir)
    images = CHECKS[dataset](data_dir, trial, report, published=not rendered)
    if rendered:
        compare_with_settings(dataset, data_dir, report)
    check_images(data_dir, images, report, num_workers=num_workers, max_pixels=max_pixels, progress=progress)
    return report
