"""Synthetic people for visible-infrared re-identification: rendered, deterministic, no download.

write_tree("sysu_mm01", Path("data/synthetic"), settings, num_workers=2)
pixels = render_image(sample_person(seed, pid), SYSU_MM01_CAMERAS[2], 1, seed=seed, difficulty=..., image_size=...)
"""

from icre_jax.rendering.camera import HITSZ_VCM_CAMERAS, LLCM_CAMERAS, REGDB_CAMERAS, SYSU_MM01_CAMERAS, Camera
from icre_jax.rendering.person import Person, sample_person
from icre_jax.rendering.render import Rendered, render_image, render_with_mask
from icre_jax.rendering.settings import DIFFICULTIES, SyntheticSettings
from icre_jax.rendering.sheet import contact_sheet
from icre_jax.rendering.writers import write_tree

__all__ = [
    "DIFFICULTIES",
    "HITSZ_VCM_CAMERAS",
    "LLCM_CAMERAS",
    "REGDB_CAMERAS",
    "SYSU_MM01_CAMERAS",
    "Camera",
    "Person",
    "Rendered",
    "SyntheticSettings",
    "contact_sheet",
    "render_image",
    "render_with_mask",
    "sample_person",
    "write_tree",
]
