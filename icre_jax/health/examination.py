"""Everything that a run needs, looked at one thing after the other."""

from collections.abc import Callable, Iterator
from pathlib import Path

from icre_jax.health.findings import Finding
from icre_jax.health.installed import check_devices, check_extras, check_versions
from icre_jax.health.places import check_data, check_folder, check_space, check_start, check_weights, only_reads_records
from icre_jax.health.trial_step import check_step
from icre_jax.machine.caches import keep_compiled_programs
from icre_jax.settings import resolve_paths
from icre_jax.settings.fields import Settings


def examine(settings: Settings, workdir: Path) -> Iterator[Finding]:
    """Everything that a run of `settings` in `workdir` needs, one finding after the other."""
    settings = resolve_paths(settings)
    yield from check_versions()
    devices = check_devices()
    yield devices
    yield from check_extras({"tensorboard"} if settings.logging.tensorboard else set())
    yield check_folder("workdir", workdir, "Choose another --workdir.")
    yield _guard("disk", lambda: check_space(settings, workdir))
    if settings.data.synthetic is not None and not Path(settings.data.data_dir).is_dir():
        yield check_folder("data folder", Path(settings.data.data_dir), "Choose another --config.data.data_dir.")
    if not only_reads_records(settings.data):
        yield check_folder("records", Path(settings.data.prepared_dir), "Choose another --config.data.prepared_dir.")
    cache = keep_compiled_programs()
    if cache and "://" not in str(cache):
        yield check_folder("compile cache", cache.resolve(), "Set JAX_COMPILATION_CACHE_DIR to another folder.")
    if settings.pretrained is not None:
        yield _guard("weights", lambda: check_weights(settings))
    if settings.init_from is not None:
        yield _guard("start", lambda: check_start(settings))
    yield _guard("data", lambda: check_data(settings))
    if devices.state == "broken":
        yield Finding("one step", "broken", "not tried: there is no device")
    else:
        yield _guard("one step", lambda: check_step(settings))


def _guard(what: str, check: Callable[[], Finding]) -> Finding:
    """Whatever goes wrong is what was to be found out; the other checks are still made."""
    try:
        return check()
    except Exception as error:
        return Finding(what, "broken", f"{type(error).__name__}: {error}")
