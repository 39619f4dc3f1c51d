"""What, beside the config and the data, decides the last bits of a run: kind of device, compiler, and its flags.

On one kind of CPU equal seeds give equal bits. A TPU runs a compiled program the same way each time. A GPU does so only
if it is told to: `DETERMINISTIC` makes XLA leave out every operation that adds up in no fixed order, and take the first
algorithm there is where it would otherwise time several and keep the fastest. No version of JAX or XLA promises the
bits of another one.
"""

import dataclasses
import os
from typing import Any

import jax

# Implies --xla_gpu_exclude_nondeterministic_ops=true and no autotuning (level 0).
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "JAX_DEFAULT_MATMUL_PRECISION")
# Of XLA's flags, those that cannot change a number.
_NOT_NUMERIC = ("--xla_dump", "--xla_force_host_platform_device_count", "--xla_hlo_profile")


@dataclasses.dataclass(frozen=True)
class Numerics:
    """Where numbers are computed, and how.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      device_kind: as the device calls itself, e.g. "NVIDIA H100 80GB HBM3" or "TPU v5 lite".
      num_devices: of all processes.
      jax: version.
      runtime: version of what drives the device, as it calls itself.
      flags: environment variables and XLA's flags that can change a number, as NAME=VALUE, sorted. The value of one
        that names a file is left out: nothing of the machine travels with a network.
    """

    platform: str
    device_kind: str
    num_devices: int
    jax: str
    runtime: str
    flags: tuple[str, ...]

    @property
    def deterministic(self) -> bool:
        """Whether the same run gives the same bits again, here and with these flags."""
        return (
            self.platform != "gpu" or DETERMINISTIC in self.flags or DETERMINISTIC.removesuffix("=true") in self.flags
        )

    def plain(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self) | {"flags": list(self.flags), "deterministic": self.deterministic}


def numerics_here() -> Numerics:
    """Of this process."""
    device = jax.devices()[0]
    return Numerics(
        platform=device.platform,
        device_kind=device.device_kind,
        num_devices=jax.device_count(),
        jax=jax.__version__,
        runtime=" ".join(str(getattr(device.client, "platform_version", "")).split()),
        flags=_flags(os.environ),
    )


def from_plain(values: dict[str, Any]) -> Numerics:
    """Inverse of `Numerics.plain`, of a file of anybody's.

    Raises:
      KeyError, TypeError: it is not one of ours.
    """
    found = {field.name: values[field.name] for field in dataclasses.fields(Numerics)}
    flags = found["flags"]
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        raise TypeError(f"flags is {flags!r}")
    for name, value in found.items():
        if name != "flags" and not isinstance(value, int if name == "num_devices" else str):
            raise TypeError(f"{name} is {value!r}")
    return Numerics(**found | {"flags": tuple(flags)})


def differences(then: Numerics, now: Numerics) -> list[str]:
    """Everything that differs, as "name: then -> now"; where there is something, other bits are no surprise."""
    return [
        f"{field.name}: {_show(getattr(then, field.name))} -> {_show(getattr(now, field.name))}"
        for field in dataclasses.fields(Numerics)
        if getattr(then, field.name) != getattr(now, field.name)
    ]


def _show(value: Any) -> str:
    return (" ".join(value) or "none") if isinstance(value, tuple) else str(value)


def _flags(environment: Any) -> tuple[str, ...]:
    found = []
    for variable in _VARIABLES:
        value = environment.get(variable, "").strip()
        if variable in ("XLA_FLAGS", "LIBTPU_INIT_ARGS"):
            found += [_without_path(flag) for flag in value.split() if not flag.startswith(_NOT_NUMERIC)]
        elif value:
            found.append(f"{variable}={value}")
    return tuple(sorted(found))


def _without_path(flag: str) -> str:
    name, _, value = flag.partition("=")
    return f"{name}=(a file)" if "/" in value else flag
