"""What the package asks for, beside what Colab's runtimes have (tests/colab/): pip leaves the runtimes' own JAX alone.

A requirement is accepted by what is installed there, or stands in one of the two short lists below: what pip upgrades
there, and what it adds. Nothing here asks an index. What packages ask for in turn is read where the version installed
here is the runtime's: everywhere in CI's pass with the oldest versions, here and there otherwise.
"""

import importlib.metadata
import itertools
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

# These fit the runtime's accelerator and each other, and may be in use before anything is installed: they stay.
KEPT = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt", "libtpu", "flax", "numpy")
# What pip upgrades there. protobuf is 5.29.6, with which `tensorflow_datasets` has no `core`. Of a newer one pip says
# that grpcio-status wants it older; we do not use that. TensorFlow 2.20, which is there, takes both.
UPGRADED = {
    "cpu": {"protobuf"},
    "gpu": {"protobuf"},
    "tpu": set(),
}
# What is not there. Pure Python, and asks for nothing that is not there.
_ADDED = {"importlib-resources", "ml-collections", "tensorboardx"}
ADDED = {"cpu": _ADDED, "gpu": _ADDED, "tpu": _ADDED | {"flatbuffers"}}
# Extras for those who change the package, for clusters, and those that bring an accelerator's JAX: nobody asks for
# them in a runtime.
NOT_THERE = {"test", "docs", "browser", "ray", "tpu", "cuda"}
# Of the extra "hub", which the tests do without. The runtimes have it, and what it asks for in turn.
NOT_HERE = {"huggingface-hub"}

PYTHON = {"python_version": "3.13", "python_full_version": "3.13.0", "platform_system": "Linux"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def packages_of(runtime: str) -> dict[str, str]:
    lines = (ROOT / "tests" / "colab" / f"{runtime}.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


RUNTIMES = {runtime: packages_of(runtime) for runtime in UPGRADED}
HERE = {canonicalize_name(d.name): d.version for d in reversed(list(importlib.metadata.distributions())) if d.name}


def of_the_package() -> Iterator[Requirement]:
    extras = PROJECT["optional-dependencies"]
    asked = (extras[name] for name in extras.keys() - NOT_THERE)
    for requirement in map(Requirement, itertools.chain(PROJECT["dependencies"], *asked)):
        if requirement.name != PROJECT["name"]:  # an extra that is made of others
            yield requirement


def of(name: str, extras: set[str]) -> Iterator[Requirement]:
    """What the version of `name` that is installed here asks for on a runtime."""
    for requirement in map(Requirement, importlib.metadata.requires(name) or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate(PYTHON | {"extra": extra}) for extra in {"", *extras}):
            yield requirement


def accepted(requirement: Requirement, version: str) -> bool:
    return requirement.specifier.contains(version, prereleases=True)


@pytest.mark.versions
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_installed_on_a_runtime_is_accepted(runtime):
    there = RUNTIMES[runtime]
    refused, absent = set(), set()
    for requirement in of_the_package():
        name = canonicalize_name(requirement.name)
        if name not in there:
            absent.add(name)
        elif not accepted(requirement, there[name]):
            refused.add(name)
    assert refused == UPGRADED[runtime]
    assert not refused & set(KEPT)
    assert absent == ADDED[runtime]
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.13")


@pytest.mark.versions
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_that_asks_for_in_turn_is_accepted_too(runtime):
    there = RUNTIMES[runtime]
    todo = [(requirement, "icre_jax") for requirement in of_the_package()]
    seen, unknown, complaints = set(), set(), []
    while todo:
        requirement, asker = todo.pop()
        name = canonicalize_name(requirement.name)
        changed = name in ADDED[runtime] | UPGRADED[runtime]
        if not changed and (name not in there or not accepted(requirement, there[name])):
            complaints.append(f"{asker} asks for {requirement}, there is {there.get(name, 'none')}")
        # Of another version than the runtime's it is not known here what it asks for. What is added or upgraded comes
        # in a version of pip's choice: the one that is here stands for it.
        if name not in HERE or not (changed or HERE[name] == there.get(name)):
            unknown.add(name)
        elif (name, frozenset(requirement.extras)) not in seen:
            seen.add((name, frozenset(requirement.extras)))
            todo += [(further, name) for further in of(name, requirement.extras)]
    assert not complaints
    assert {name for name, _ in seen} >= ADDED[runtime]
    if HERE["jax"] == there["jax"] and runtime == "tpu":  # the pass with the oldest versions
        assert unknown <= NOT_HERE


def test_the_oldest_jax_that_is_promised_is_the_one_that_is_tried():
    promised = {requirement.name: requirement.specifier for requirement in of_the_package()}
    for name in ("jax", "flax"):
        (oldest,) = {packages[name] for packages in RUNTIMES.values()}
        assert f">={oldest}" in str(promised[name]).split(",")
