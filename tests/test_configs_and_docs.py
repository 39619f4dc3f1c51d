"""Every config in every variant can be used, and the code in the docs runs and says the truth about shapes."""

import importlib
import re

import jax
import jax.numpy as jnp
import pytest

from icre_jax.datasets import CARDS
from icre_jax.engine.optimizer import GROUPS
from icre_jax.machine import command
from icre_jax.models.network import build_network
from icre_jax.settings import flatten, parse
from tests.conftest import ROOT

INSTRUMENTS = ("instrument", "instrument_second", "instrument_thermal", "instrument_imagenet")
FILES = ("synthetic", *INSTRUMENTS, "manifest", "sysu_mm01", "llcm", "regdb")
VARIANTS = ("", "baseline", "baseline_triplet", "agw", "mpfr", "sdce", "icg", "mpfr_sdce", "offset", "local", "adam")


def settings_of(file, variant):
    return parse(importlib.import_module(f"configs.{file}").get_config(variant))


@pytest.mark.parametrize("file", FILES)
def test_every_variant_is_what_its_name_says(file):
    seen = {variant: settings_of(file, variant) for variant in VARIANTS}
    for variant, settings in seen.items():
        build_network(settings, num_classes=9)
        assert settings.name == (f"{file}_{variant}" if variant else file)
        assert settings.model.mpfr.enabled == (variant in ("", "mpfr", "mpfr_sdce", "adam"))
        assert settings.model.sdce.enabled == (variant in ("", "sdce", "mpfr_sdce", "adam"))
        assert (settings.loss.icg_weight > 0) == (variant in ("", "icg", "adam"))
        assert (settings.loss.triplet_weight > 0) == (variant in ("baseline_triplet", "agw"))
        assert any(settings.model.non_local_blocks) == (variant == "agw")
        assert {f"{group}_learning_rate" for group in GROUPS} <= set(settings.optimizer.model_dump())
    assert seen["agw"].loss.triplet_form == "weighted"
    assert seen["adam"].optimizer.name == "adam"


# AGW as released (docs/protocols.md, section 4).
AGW_NETWORK = {
    "model.depth": 50, "model.width": 64, "model.last_stride": 1, "model.specific_until": "stem",
    "model.non_local_blocks": (0, 2, 3, 0), "model.non_local_channels": 1, "model.mpfr.enabled": False,
    "model.sdce.enabled": False, "model.gem_p": 3.0, "model.neck_init_std": 0.01, "loss.label_smoothing": 0.0,
    "loss.icg_weight": 0.0, "loss.triplet_weight": 1.0, "loss.triplet_form": "weighted",
}  # fmt: skip
AGW_RECIPE = {
    "data.image_size": (288, 144), "sampling.num_ids_per_batch": 8, "sampling.num_images_per_id": 4,
    "augment.pad": 10, "augment.flip_probability": 0.5, "augment.channel_probability": 0.0,
    "augment.erasing_probability": 0.0, "optimizer.name": "sgd", "optimizer.momentum": 0.9,
    "optimizer.backbone_weight_decay": 5e-4, "optimizer.head_weight_decay": 5e-4,
    "optimizer.backbone_learning_rate": 0.01, "optimizer.head_learning_rate": 0.1,
    "optimizer.accumulate_steps": 1, "optimizer.ema_decay": 0.0, "schedule.num_epochs": 81,
    "schedule.warmup_epochs": 10, "schedule.boundaries": (20, 50), "schedule.factors": (0.1, 0.01),
}  # fmt: skip


@pytest.mark.parametrize("file", ["sysu_mm01", "llcm", "regdb"])
def test_agw_is_the_released_one_on_the_real_data_sets(file):
    values = flatten(settings_of(file, "agw"))
    expected = AGW_NETWORK | AGW_RECIPE
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize("file", ["synthetic", "instrument", "instrument_thermal", "manifest"])
def test_agw_on_a_small_network_has_the_recipe_of_its_file(file):
    settings, plain = settings_of(file, "agw"), settings_of(file, "")
    assert settings.model.depth == 18
    assert settings.model.non_local_blocks == (0, 2, 2, 0)  # as many as a ResNet-18 has blocks
    network = {name: AGW_NETWORK[name] for name in AGW_NETWORK if name.startswith("loss.")}
    network |= {"model.non_local_channels": 1, "model.neck_init_std": 0.01, "model.gem_p": 3.0}
    assert {name: flatten(settings)[name] for name in network} == network
    built = build_network(settings, num_classes=9)
    assert (built.backbone.non_local_channels, built.head.neck_init_std) == (1, 0.01)
    same = ("data", "sampling", "augment", "optimizer", "schedule")
    assert settings.model_dump(include=set(same)) == plain.model_dump(include=set(same))


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'icg2'; allowed are baseline, .*, mpfr_sdce, offset, local, adam"):
        settings_of("llcm", "icg2")


def test_docs_network_code_gives_the_shapes_it_says():
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "network.md").read_text(), re.DOTALL)[1]
    shown = re.findall(r"^((?:outputs|maps)\[.*?\])\s+# (\[[\d, ]+\])", code, re.MULTILINE)
    assert len(shown) == 7
    names: dict = {}
    # Shapes are all that is shown, and they need no compiling.
    network_apply = jax.eval_shape
    code = code.replace("network.init(", "init(network, ").replace("network.apply(", "apply(network, ")
    names["init"] = lambda n, *args, **flags: network_apply(lambda k, x: n.init(k, x, **flags), *args)
    names["apply"] = lambda n, *args, **flags: network_apply(lambda v, x: n.apply(v, x, **flags), *args)
    exec(compile(code, "docs/network.md", "exec"), names)
    for expression, shape in shown:
        assert str(list(eval(expression, names).shape)) == shape, expression
    assert isinstance(names["images"], jnp.ndarray)


def test_the_promises_name_tests_and_codes_that_are_there():
    named = re.findall(r"`((?:attacks/)?test_\w+\.py)(?:::(test_\w+))?`", (ROOT / "docs" / "promises.md").read_text())
    assert len(named) > 50
    for file, function in named:
        assert re.search(rf"def {function}\b" if function else "def test_", (ROOT / "tests" / file).read_text()), file
    rows = re.findall(r"^\| (?!promise|---)(.+) \| (.+) \|$", (ROOT / "docs" / "promises.md").read_text(), re.MULTILINE)
    assert all(re.search(r"`(?:attacks/)?test_", tests) for _, tests in rows)
    text = (ROOT / "docs" / "when_a_run_stops.md").read_text()
    codes = {value for name, value in vars(command).items() if name.startswith("EXIT_")}
    assert codes | {0} == {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}


@pytest.mark.parametrize(
    ("page", "number"), [("SECURITY.md", 25), ("docs/responsible_use.md", 5), ("docs/serve.md", 14)]
)
def test_the_promises_of_safety_name_tests_that_are_there(page, number):
    text = (ROOT / page).read_text()
    named = re.findall(r"`(?:((?:attacks/)?test_\w+\.py)(?:::(test_\w+))?|(test_\w+))`", text)
    assert len(named) >= number
    for file, function, alone in named:
        there = (ROOT / "tests" / (file or "test_serve_attacks.py")).read_text()  # as docs/serve.md says
        assert f"def {function or alone or 'test_'}" in there, (file, function, alone)


def sections(page):
    """Title of every section of a page -> its text."""
    parts = re.split(r"^#+ (.+)\n", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_what_the_code_cites_is_in_the_docs():
    """As "docs/method.md, MPFR", "docs/protocols.md, section 4" or "docs/protocols.md, SYSU-MM01 step 3"."""
    pages = {name: sections(f"{name}.md") for name in ("method", "protocols")}
    files = [file for folder in ("icre_jax", "configs", "tests") for file in (ROOT / folder).rglob("*.py")]
    cited = {
        (page, place.strip())
        for file in files
        for page, place in re.findall(
            r"\b(method|protocols)\.md`?(?:, | \()(section \d|[A-Z][A-Za-z0-9 -]*)", " ".join(file.read_text().split())
        )
    }
    assert ("method", "MPFR") in cited
    for page, place in cited:
        title, _, step = place.partition(" step ")
        title = title.replace("section ", "")
        found = [text for name, text in pages[page].items() if name == title or name.startswith(f"{title}. ")]
        assert len(found) == 1, f"docs/{page}.md has no section {title!r}"
        assert not step or f"\n{step}. " in found[0], f"docs/{page}.md, {title} has no step {step}"


def test_the_numbers_beside_ours_are_those_of_the_docs():
    tables = sections("protocols.md")["3. Published numbers"]
    for paper in (paper for card in CARDS.values() for paper in card.published):
        # As printed: some papers give one decimal.
        numbers = "/".join("-" if n is None else re.sub("0$", "0?", f"{100 * n:.2f}") for n in (paper.rank1, paper.mAP))
        assert re.search(rf"^\| {paper.method.split()[0]}\b.* {numbers} ", tables, re.MULTILINE), paper


def test_lines_of_the_docs_are_short():
    """Lines of tables, and those that hold a URL, cannot be broken."""
    files = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            assert len(line) <= 120 or line.startswith("|") or "://" in line, f"{file.relative_to(ROOT)}:{number}"


def test_what_the_texts_name_is_in_the_package():
    """Dotted names and paths of the package, in docs, configs and docstrings, are files, or names in them."""
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for folder, pattern in (("docs", "*.md"), ("configs", "*.py"), ("icre_jax", "*.py"), ("benchmarks", "*.py")):
        texts += sorted((ROOT / folder).rglob(pattern))
    for text in texts:
        content = text.read_text(encoding="utf-8")
        for path in re.findall(r"\b(?:icre_jax|tests|configs|benchmarks|colabs)/[\w/]+\.\w+", content):
            assert (ROOT / path).is_file(), f"{text.relative_to(ROOT)} names {path}"
        for dotted in re.findall(r"`(?:python -m )?(icre_jax(?:\.\w+)+)", content):
            place, *rest = ROOT, *dotted.removesuffix(".COMMAND").split(".")
            while rest and (place / rest[0]).is_dir():
                place /= rest.pop(0)
            if rest and (place / f"{rest[0]}.py").is_file():
                place = place / f"{rest.pop(0)}.py"
            file = place if place.is_file() else place / "__init__.py"
            found = not rest or re.search(rf"\b{rest[0]}\b", file.read_text(encoding="utf-8"))
            assert found, f"{text.relative_to(ROOT)} names {dotted}"
