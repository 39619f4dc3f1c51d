"""Published weights: against a reference's outputs and a ResNet in NumPy, there and back, and what is refused."""

import contextlib
import pickle
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from icre_jax.data.pipeline import training_batches
from icre_jax.data.prepared import open_or_prepare
from icre_jax.engine.checkpoint.folder import Checkpoints
from icre_jax.engine.pretrained import overlay, read_backbone, start_from, write_backbone
from icre_jax.errors import InputError
from icre_jax.models.head import Head, gem_pool
from icre_jax.models.network import ReIDNetwork
from icre_jax.models.resnet import STAGES, DualStreamResNet
from icre_jax.settings import parse
from icre_jax.training.run import assemble, restore
from tests.conftest import ROOT, SHARED, flags_of, refused, run_command

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
WIDTH = 4


def published(depth=18, width=WIDTH, seed=0, extras=True):
    """A state dict as torchvision writes it, with random values; its names and shapes are written out here."""
    rng = np.random.default_rng(seed)
    state = {}

    def conv(name, out, channels, size):
        state[f"{name}.weight"] = rng.normal(0, (channels * size * size) ** -0.5, (out, channels, size, size))

    def bn(name, channels):
        state[f"{name}.weight"] = rng.uniform(0.5, 1.5, channels)
        state[f"{name}.bias"] = rng.normal(0, 0.2, channels)
        state[f"{name}.running_mean"] = rng.normal(0, 0.2, channels)
        state[f"{name}.running_var"] = rng.uniform(0.5, 1.5, channels)

    expansion = 4 if depth == 50 else 1
    conv("conv1", width, 3, 7)
    bn("bn1", width)
    channels = width
    for stage, count in enumerate(BLOCKS[depth]):
        inner = width * 2**stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            sizes = [(inner, 1), (inner, 3), (4 * inner, 1)] if depth == 50 else [(inner, 3), (inner, 3)]
            before = channels
            for number, (out, size) in enumerate(sizes, start=1):
                conv(f"{name}.conv{number}", out, before, size)
                bn(f"{name}.bn{number}", out)
                before = out
            if block == 0 and (stage > 0 or depth == 50):
                conv(f"{name}.downsample.0", inner * expansion, channels, 1)
                bn(f"{name}.downsample.1", inner * expansion)
            channels = inner * expansion
    state = {name: value.astype(np.float32) for name, value in state.items()}
    if extras:
        state["fc.weight"], state["fc.bias"] = np.ones((1000, channels), np.float32), np.ones(1000, np.float32)
        counters = [name.replace("running_var", "num_batches_tracked") for name in state if name.endswith("var")]
        state |= {name: np.array(1, np.int64) for name in counters}
    return state


def reference(state, images, last_stride=1):
    """The same ResNet in NumPy, NCHW and float64, straight from the names in the file: layer4 [B, D, h, w]."""
    state = {name: value.astype(np.float64) for name, value in state.items()}

    def windows(x, size, stride, fill):
        pad = size // 2
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=fill)
        return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        return np.einsum("bcyxij,ocij->boyx", windows(x, weight.shape[2], stride, 0.0), weight)

    def bn(x, name):
        scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-5)
        shift = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
        return x * scale[:, None, None] + shift[:, None, None]

    x = np.maximum(bn(conv(images, "conv1", 2), "bn1"), 0)
    x = windows(x, 3, 2, -np.inf).max(axis=(4, 5))
    for stage, stride in zip(("layer1", "layer2", "layer3", "layer4"), (1, 2, 2, last_stride), strict=True):
        for block in range(100):
            name = f"{stage}.{block}"
            if f"{name}.conv1.weight" not in state:
                break
            first = stride if block == 0 else 1
            bottleneck = f"{name}.conv3.weight" in state
            y = np.maximum(bn(conv(x, f"{name}.conv1", 1 if bottleneck else first), f"{name}.bn1"), 0)
            y = bn(conv(y, f"{name}.conv2", first if bottleneck else 1), f"{name}.bn2")
            if bottleneck:
                y = bn(conv(np.maximum(y, 0), f"{name}.conv3"), f"{name}.bn3")
            if f"{name}.downsample.0.weight" in state:
                x = bn(conv(x, f"{name}.downsample.0", first), f"{name}.downsample.1")
            x = np.maximum(x + y, 0)
    return x


def shapes_of(depth=18, width=WIDTH):
    backbone = DualStreamResNet(depth=depth, width=width)
    images = jnp.zeros((2, 32, 32, 3))
    return jax.eval_shape(lambda: backbone.init(jax.random.key(0), images, modality="paired", train=False))


def write(path, state):
    save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, path)
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "resnet18.safetensors", published())


def leaves(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def assert_same(actual, expected):
    assert leaves(actual).keys() == leaves(expected).keys()
    for name, leaf in leaves(expected).items():
        assert leaves(actual)[name].dtype == leaf.dtype == np.float32
        np.testing.assert_array_equal(leaves(actual)[name], leaf, err_msg=name)


@pytest.mark.parametrize("depth", [18, 50])
def test_the_file_gives_the_same_network_in_numpy(depth, tmp_path):
    state = published(depth)
    loaded = read_backbone(write(tmp_path / "w.safetensors", state), shapes_of(depth))
    images = np.random.default_rng(1).normal(size=(2, 3, 48, 32))
    backbone = DualStreamResNet(depth=depth, width=WIDTH)
    apply = jax.jit(lambda v, x: backbone.apply(v, x, modality="paired", train=False)["layer4"])
    ours = apply(loaded, np.repeat(images, 2, axis=0).transpose(0, 2, 3, 1).astype(np.float32))
    expected = reference(state, images).transpose(0, 2, 3, 1)
    for stream in (ours[0::2], ours[1::2]):
        np.testing.assert_allclose(stream, expected, rtol=1e-4, atol=1e-5 * expected.max())


GOLDEN = ROOT / "tests" / "golden" / "resnet50.npz"
WEIGHTS = SHARED / "weights" / "resnet50_imagenet.safetensors"  # 51 MB, not in the repository
reference_files = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"needs the weights at {WEIGHTS}")
CLOSED = 45  # the channel of bn1 whose running variance is infinite in the file: too large for its float16


@pytest.fixture(scope="module")
def imagenet():
    return read_backbone(WEIGHTS, shapes_of(50, 64))


def started_from(path, shapes):
    """What training starts from: the backbone of `start_from`."""
    with pytest.warns(UserWarning, match=r"the running variance beside bn1.weight is infinite in some channels"):
        variables = start_from(path, {name: {"backbone": tree} for name, tree in shapes.items()})
    return {name: tree["backbone"] for name, tree in variables.items()}


def assert_close(actual, expected):
    """The largest difference, in shares of the largest value; and each in shares of its own value, where that is not
    below a hundredth of the largest (a mean after ReLU may be as small as it likes)."""
    difference, size = np.abs(np.asarray(actual, np.float64) - expected), np.abs(expected)
    assert difference.max() / size.max() < 1e-5  # measured: at most 6e-7
    assert (difference / np.maximum(size, 0.01 * size.max())).max() < 2e-4  # measured: at most 3e-5


@reference_files
@pytest.mark.parametrize("modality", ["visible", "infrared"])
@pytest.mark.parametrize("last_stride", [2, 1])
@pytest.mark.parametrize("source", ["as it stands", "as training starts from it"])
def test_resnet50_against_the_outputs_of_the_reference(imagenet, last_stride, modality, source):
    golden = {
        name.removeprefix(f"stride{last_stride}_"): value
        for name, value in np.load(GOLDEN, allow_pickle=False).items()
        if name.startswith(f"stride{last_stride}_")
    }
    rng = np.random.default_rng(0)
    images = {2: rng.standard_normal((2, 3, 224, 224)), 1: rng.standard_normal((2, 3, 384, 144))}[last_stride]
    assert np.isinf(imagenet["batch_stats"][f"{modality}_stem"]["bn1"]["var"]).nonzero()[0].tolist() == [CLOSED]
    variables = imagenet
    if source == "as training starts from it":
        variables = started_from(WEIGHTS, shapes_of(50, 64))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
    backbone = DualStreamResNet(depth=50, last_stride=last_stride)
    apply = jax.jit(lambda v, x: backbone.apply(v, x, modality=modality, train=False))
    maps = apply(variables, images.transpose(0, 2, 3, 1).astype(np.float32))
    for stage in ("stem", *STAGES):
        assert_close(maps[stage].mean(axis=(1, 2)), golden[f"{stage}_mean_hw"])
    if last_stride == 1:
        for stage in ("stem", *STAGES):
            B, D, h, w = golden[f"{stage}_shape"]
            assert maps[stage].shape == (B, h, w, D)
        assert_close(gem_pool(maps["layer4"], p=3.0), golden["gem3"])
    else:
        classes = {
            name: value.astype(np.float32) for name, value in load_file(WEIGHTS).items() if name.startswith("fc.")
        }
        pooled = np.asarray(maps["layer4"]).mean(axis=(1, 2))
        assert_close(pooled @ classes["fc.weight"].T + classes["fc.bias"], golden["logits"])


@pytest.mark.parametrize("stored", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_export_gives_the_file_back_bit_for_bit(stored, tmp_path):
    state = {name: value.astype(stored) for name, value in published(extras=False).items()}
    unused = {"fc.bias": np.ones(3, stored), "bn1.num_batches_tracked": np.array(5)}
    loaded = read_backbone(write(tmp_path / "in.safetensors", state | unused), shapes_of())
    assert write_backbone(tmp_path / "new" / "out.safetensors", loaded) == len(state)
    written = load_file(tmp_path / "new" / "out.safetensors")
    assert written.keys() == state.keys()
    for name, value in state.items():
        assert written[name].dtype == np.float32
        np.testing.assert_array_equal(written[name], value.astype(np.float32), err_msg=name)
    assert_same(read_backbone(tmp_path / "new" / "out.safetensors", shapes_of()), loaded)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.safetensors"]


def filled(shapes, seed=0):
    """Random values; nothing is compiled for them."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype), shapes)


def random_backbone():
    return filled(shapes_of())


def test_streams_that_differ_need_a_choice(tmp_path):
    backbone = random_backbone()
    path = tmp_path / "out.safetensors"
    with pytest.raises(InputError, match=r"(?s)differ in 5 arrays.*conv1.weight.*--stem visible or --stem infrared"):
        write_backbone(path, backbone)
    assert not path.exists()
    for stem in ("visible", "infrared"):
        path = tmp_path / f"{stem}.safetensors"
        write_backbone(path, backbone, stem=stem)
        kernel = backbone["params"][f"{stem}_stem"]["conv1"]["kernel"]
        np.testing.assert_array_equal(load_file(path)["conv1.weight"], np.einsum("hwio->oihw", kernel))
        np.testing.assert_array_equal(
            load_file(path)["bn1.running_var"], backbone["batch_stats"][f"{stem}_stem"]["bn1"]["var"]
        )


def with_own_layer1(backbone):
    """The tree of a network in which layer1 too is specific to a modality."""
    trees = {}
    for name, tree in backbone.items():
        rest = {part: value for part, value in tree.items() if part != "layer1"}
        trees[name] = rest | {"visible_layer1": tree["layer1"], "infrared_layer1": tree["layer1"]}
    return trees


def test_layer1_of_each_modality(file, tmp_path):
    shared, own = read_backbone(file, shapes_of()), read_backbone(file, with_own_layer1(shapes_of()))
    assert_same(own, with_own_layer1(shared))
    leaves_of_both = [own["params"][f"{name}_layer1"]["0"]["bn1"]["scale"] for name in ("visible", "infrared")]
    assert not np.shares_memory(*leaves_of_both)
    write_backbone(tmp_path / "equal.safetensors", own)
    leaves_of_both[1] += 1
    with pytest.raises(InputError, match=r"(?s)differ in 1 arrays.*layer1.0.bn1.weight.*--stem visible"):
        write_backbone(tmp_path / "out.safetensors", own)
    write_backbone(tmp_path / "out.safetensors", own, stem="infrared")
    np.testing.assert_array_equal(load_file(tmp_path / "out.safetensors")["layer1.0.bn1.weight"], leaves_of_both[1])


def test_non_local_blocks_keep_their_initialisation(file, tmp_path):
    block = {"theta": {"kernel": np.ones((1, 1, 8, 4)), "bias": np.ones(4)}, "bn": {"scale": np.zeros(8)}}
    own = overlay_into(random_backbone(), "params", "layer2", {"non_local_1": block})
    loaded = read_backbone(file, own)
    assert_same(loaded, read_backbone(file, shapes_of()))
    whole = overlay(own, loaded)
    assert whole["params"]["layer2"]["non_local_1"] is block
    assert whole["params"]["layer2"]["0"] == loaded["params"]["layer2"]["0"]
    with pytest.raises(InputError, match=r"(?s)3 arrays that a plain ResNet has no place for.*layer2.non_local_1.bn"):
        write_backbone(tmp_path / "out.safetensors", whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]


def overlay_into(tree, collection, stage, new):
    return tree | {collection: tree[collection] | {stage: tree[collection][stage] | new}}


def test_any_other_layer_without_a_source_is_refused(file):
    own = overlay_into(random_backbone(), "params", "layer2", {"attention": {"kernel": np.ones((1, 1, 8, 4))}})
    with pytest.raises(InputError, match=r"params.layer2.attention.kernel: no published ResNet has this layer"):
        read_backbone(file, own)


def test_everything_that_does_not_fit_stands_in_one_message(tmp_path):
    state = published()
    del state["layer3.1.bn2.running_mean"], state["conv1.weight"]
    state["layer1.0.se.fc1.weight"] = np.ones((2, 4, 1, 1), np.float32)
    state["layer2.0.conv1.weight"] = np.ones((8, 4, 1, 1), np.float32)
    state["layer4.0.bn1.weight"] = np.ones(32, np.int32)
    state["bn1.running_mean"][1] = np.nan
    path = write(tmp_path / "w.safetensors", state)
    with pytest.raises(InputError) as caught:
        read_backbone(path, shapes_of())
    assert str(caught.value).splitlines() == [
        f"{path} does not fit the backbone:",
        "  - conv1.weight: missing, [4, 3, 7, 7] wanted",
        "  - layer3.1.bn2.running_mean: missing, [16] wanted",
        "  - layer1.0.se.fc1.weight: extra, [2, 4, 1, 1]",
        "  - bn1.running_mean: has values that are not finite",
        "  - layer2.0.conv1.weight: shape [8, 4, 1, 1] found, [8, 4, 3, 3] wanted",
        "  - layer4.0.bn1.weight: stored as I32; float32, float16 or bfloat16 is read",
        "Give a plain ResNet-18 of torchvision or timm, such as timm/resnet18.tv_in1k.",
    ]


def test_another_depth_or_width_is_recognised(tmp_path):
    path = write(tmp_path / "w.safetensors", published(50))
    with pytest.raises(InputError) as caught:
        read_backbone(path, shapes_of(18))
    lines = str(caught.value).splitlines()
    assert "model.depth is 18, but this looks like a ResNet-50: set model.depth=50" in lines[-1]
    assert "  - layer1.0.conv3.weight: extra, [16, 4, 1, 1]" in lines
    assert sum("extra" in line for line in lines) > 100  # nothing is left out
    with pytest.raises(InputError, match=r"model.width is 8, but this file has width 4: set model.width=4"):
        read_backbone(path, shapes_of(50, 8))


def test_only_safetensors_is_read(file, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "w.pth").write_bytes(pickle.dumps(Harmful()))
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:  # what torch.save writes today
        archive.writestr("archive/data.pkl", pickle.dumps(Harmful()))
    (tmp_path / "short.safetensors").write_bytes(file.read_bytes()[:-5])
    for name in ("w.pth", "zip.pth", "short.safetensors", "absent.safetensors"):
        with pytest.raises(InputError, match=r"(?s)pickles .* execute code.*timm/resnet50.tv_in1k") as caught:
            read_backbone(tmp_path / name, shapes_of())
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(InputError, match="There is no weights file"):
        read_backbone(tmp_path, shapes_of())
    assert not (tmp_path / "executed").exists()


def test_a_variance_too_large_for_float16(tmp_path):
    state = {name: value.astype(np.float16) for name, value in published(extras=False).items()}
    state["layer2.0.bn1.running_var"][3] = np.inf
    path = write(tmp_path / "w.safetensors", state)
    faithful = read_backbone(path, shapes_of())
    assert np.isinf(faithful["batch_stats"]["layer2"]["0"]["bn1"]["var"]).nonzero()[0].tolist() == [3]
    with pytest.warns(UserWarning, match=r"beside layer2.0.bn1.weight is infinite .* start with scale 0"):
        started = start_from(path, {name: {"backbone": tree} for name, tree in shapes_of().items()})
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(started) if isinstance(leaf, np.ndarray))
    bn1 = {name: tree["backbone"]["layer2"]["0"]["bn1"] for name, tree in started.items()}
    assert (bn1["params"]["scale"][3], bn1["batch_stats"]["mean"][3], bn1["batch_stats"]["var"][3]) == (0, 0, 1)
    others = np.arange(8) != 3
    kept = faithful["params"]["layer2"]["0"]["bn1"]["scale"][others]
    np.testing.assert_array_equal(bn1["params"]["scale"][others], kept)
    state["layer2.0.bn1.running_mean"][3] = np.inf  # no such reading here
    with pytest.raises(InputError, match=r"layer2.0.bn1.running_mean: has values that are not finite"):
        read_backbone(write(path, state), shapes_of())


def test_a_file_that_exists_or_cannot_be_written(file):
    before = file.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        write_backbone(file, random_backbone(), stem="visible")
    assert file.read_bytes() == before
    with pytest.raises(InputError, match="Cannot write"):
        write_backbone(file / "under_a_file.safetensors", random_backbone(), stem="visible")


def test_a_run_starts_from_a_file(file):
    network = ReIDNetwork(DualStreamResNet(depth=18, width=WIDTH), Head(num_classes=2))
    images = jnp.zeros((2, 32, 16, 3))
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images, modality="paired", train=True))
    initial, loaded = filled(shapes), read_backbone(file, shapes_of())
    variables = start_from(file, initial)
    assert jax.tree.structure(variables) == jax.tree.structure(initial)
    assert_same({name: tree["backbone"] for name, tree in variables.items()}, loaded)
    assert_same(*[{name: tree["head"] for name, tree in trees.items()} for trees in (variables, initial)])
    # Shapes are enough to read by.
    assert_same({name: tree["backbone"] for name, tree in start_from(file, shapes).items()}, loaded)


def test_training_starts_from_the_file(config, tmp_path):
    config.pretrained = str(write(tmp_path / "resnet18.safetensors", published(width=config.model.width)))
    config.schedule.num_epochs = 1
    settings = parse(config)
    prepared = open_or_prepare("sysu_mm01", Path(config.data.data_dir), Path(config.data.prepared_dir))
    run = assemble(settings, tmp_path / "run", prepared)
    with contextlib.closing(Checkpoints(tmp_path / "run")) as checkpoints:
        state = restore(run, checkpoints, step=None)
    weights = load_file(config.pretrained)
    for stem in ("visible_stem", "infrared_stem"):
        kernel = np.asarray(state.params["backbone"][stem]["conv1"]["kernel"])
        np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), weights["conv1.weight"])
    # One step uses up the memory of the state, not that of the file's arrays, and nothing else was touched.
    rest = jax.tree.map(np.asarray, {name: state.params[name] for name in ("mpfr", "sdce", "head")})
    fresh = run.create_state().params
    assert_same(rest, {name: fresh[name] for name in rest})
    batch = next(iter(training_batches(run.source, run.plan, data=settings.data, settings=settings.augment, seed=0)))
    _, metrics = run.step(state, {name: batch[name] for name in ("image", "label", "modality")})
    assert np.isfinite(float(metrics["loss"]))


def test_train_refuses_weights_of_another_network(config, tmp_path):
    config.pretrained = str(write(tmp_path / "resnet50.safetensors", published(50)))
    process = run_command("icre_jax.train", *flags_of(config), "--workdir", str(tmp_path / "run"))
    refused(process, "layer1.0.conv3.weight: extra", "this looks like a ResNet-50: set model.depth=50")
