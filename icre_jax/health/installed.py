"""What is installed: versions, extras, and the devices that JAX can use."""

import importlib.metadata
import os
import platform
from pathlib import Path

import jax
from packaging.requirements import Requirement

from icre_jax.health.findings import Finding

_PACKAGE = "icre_jax"
# Extras for the people who change the package; a user never lacks them.
_DEVELOPMENT = ("test", "docs", "demo")
_ACCELERATORS = {"cuda": ("/dev/nvidia0",), "tpu": ("/dev/accel0", "/dev/vfio/0")}


def check_versions() -> list[Finding]:
    """Every package that is asked for is there, in a version that was asked for."""
    try:
        metadata = importlib.metadata.metadata(_PACKAGE)
        wanted = [Requirement(text) for text in importlib.metadata.requires(_PACKAGE) or ()]
    except importlib.metadata.PackageNotFoundError:
        return [Finding("versions", "note", "icre_jax is not installed, so nothing is known of them: pip install -e .")]
    findings = [Finding("python", "ok", f"{platform.python_version()} (needs {metadata['Requires-Python']})")]
    shown = []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            seen = f"{version} is installed" if version else "not installed"
            findings.append(Finding(requirement.name, "broken", f"{seen}: pip install '{requirement}'"))
        else:
            shown.append(f"{requirement.name} {version}")
    return [*findings, Finding("versions", "ok", ", ".join(shown))]


def check_extras(needed: set[str]) -> list[Finding]:
    """Which extras are installed, and the line that installs each of the others.

    Args:
      needed: extras that the config cannot do without.
    """
    try:
        extras = importlib.metadata.metadata(_PACKAGE).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    findings = []
    for extra in extras:
        missing = _missing(_PACKAGE, extra)
        if missing and (extra in needed or extra not in _DEVELOPMENT):
            line = f"pip install '{_PACKAGE}[{extra}]'"
            words = f"{', '.join(missing)} not installed;"
            if extra in needed:
                findings.append(Finding(f"extra {extra}", "broken", f"{words} the config needs it: {line}"))
            else:
                findings.append(Finding(f"extra {extra}", "note", f"{words} only if you want it: {line}"))
        elif not missing:
            findings.append(Finding(f"extra {extra}", "ok", "installed"))
    return findings


def check_devices() -> Finding:
    """JAX finds a device; an accelerator that it does not use is named."""
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second where JAX_PLATFORMS names what is not installed
        platforms = os.environ.get("JAX_PLATFORMS")
        advice = f"JAX_PLATFORMS is {platforms!r}; unset it, or " if platforms else ""
        extras = " or ".join(f"pip install '{_PACKAGE}[{extra}]'" for extra in _ACCELERATORS)
        return Finding("devices", "broken", f"JAX finds none. {error} {advice}install what that device needs: {extras}")
    words = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    if devices[0].platform == "cpu":
        for extra, files in _ACCELERATORS.items():
            if any(Path(file).exists() for file in files):
                return Finding(
                    "devices", "note", f"{words}; a device for '{extra}' is there: pip install '{_PACKAGE}[{extra}]'"
                )
    return Finding("devices", "ok", words)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _missing(package: str, extra: str) -> list[str]:
    """Packages that `package[extra]` asks for and that are not here; an extra may ask for extras of others."""
    missing = []
    for text in importlib.metadata.requires(package) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or not marker.evaluate({"extra": extra}) or marker.evaluate({"extra": ""}):
            continue
        if _version(requirement.name) is None:
            missing.append(requirement.name)
        else:
            for further in sorted(requirement.extras):
                missing += _missing(requirement.name, further)
    return sorted(set(missing))
