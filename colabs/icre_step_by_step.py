# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # ICRE, step by step
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# The method beside its code: one batch on its way through the network, the ICG loss on points that move, and one
# training step. It needs no data set and no accelerator. The people are rendered; wherever a trained network is wanted,
# it is the small one that comes with the package.
#
# The full text of the paper ("Identity Clue Refinement and Enhancement for Visible-Infrared Person Re-Identification",
# arXiv 2512.04522) was not available to this project. Every part is therefore tagged: **[P]** the authors' own words,
# **[S]** from a summary by others, **[I]** inferred from the closest published relatives. `docs/method.md` has every
# equation and every alternative; this notebook shows the defaults.
#
# To open it in Colab: put the repository's folder into your Drive and double-click this file in it, or give the file to
# the page behind the badge, under Upload. Then run all.

# %% tags=["parameters"]
CODE = "icre_jax"  # the code: its folder in your Drive, or a Git address (https://... or git+https://...@branch)

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # on a CPU: two simulated devices, for the last step but one
drive = Path.cwd()
if "google.colab" in sys.modules and "://" not in CODE:
    from google.colab import drive as mount

    mount.mount("/content/drive")
    drive = Path("/content/drive/MyDrive")

# %% [markdown]
# ## The code
#
# From the folder in your Drive, or from the Git address: nothing is looked for under its name in a package index, where
# that name is not ours. The folder is copied, so that building leaves nothing in your Drive. Where the package is
# installed already this is skipped; Runtime → Disconnect and delete runtime, and run all, to take newer code.

# %%
import shutil
import tempfile
from importlib import metadata

installed = {found.name for found in metadata.distributions()}
source = None
if "icre_jax" not in installed:
    source = CODE if CODE.startswith("git+") else f"git+{CODE}"
    if (drive / CODE / "pyproject.toml").is_file():
        unwanted = shutil.ignore_patterns(".*", "build", "runs")
        source = shutil.copytree(drive / CODE, Path(tempfile.mkdtemp()) / "icre_jax", ignore=unwanted)
    elif "://" not in CODE:
        raise RuntimeError(f"No code: no pyproject.toml in {drive / CODE}, and {CODE!r} is no Git address. Set CODE.")
print("installed already" if source is None else source)

# %% [markdown]
# ## Installation
#
# What the runtime has of JAX and NumPy stays: it fits the accelerator, so pip may not change it, and says so if the two
# do not go together. On CPU and GPU runtimes protobuf is upgraded, and pip names a package that would rather have the
# older one (`grpcio-status`): it is not used here.

# %%
import subprocess

names = {"jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt", "libtpu", "flax", "numpy"}
kept = {name: metadata.version(name) for name in names & installed}
Path("kept.txt").write_text("".join(f"{name}=={version}\n" for name, version in sorted(kept.items())))
if source is not None:
    command = [sys.executable, "-m", "pip", "install", "--constraint", "kept.txt", str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout:
            print(line, end="")
    if pip.returncode:
        raise RuntimeError("The code was not installed. What pip says of it stands above.")
if {name: metadata.version(name) for name in kept} != kept:
    raise RuntimeError(f"{kept} did not stay: Runtime → Disconnect and delete runtime.")
for module, name in (("numpy", "numpy"), ("google.protobuf", "protobuf")):
    if module in sys.modules and sys.modules[module].__version__ != metadata.version(name):
        raise RuntimeError(f"An older {name} is in use: Runtime → Restart session, and run all again.")

# %% [markdown]
# ## The people
#
# Twelve rendered people to learn from, seen by up to six cameras, of which two are infrared (and two more people, as
# the layout of SYSU-MM01 wants somebody for validation and test). They come from another seed than those the network in
# the package was trained on, so it has seen none of them. Each image is decoded once to check it, and its file's bytes
# are then kept in ArrayRecord files, as for a real data set.
#
# The network is a ResNet-18 with a quarter of the usual channels, the one of `configs/synthetic.py`. SGD in place of
# Adam, because the last step but one compares two ways of computing the same numbers: Adam's first update is little
# more than the sign of the gradient, and where the gradient is near 0 rounding may turn that over.

# %%
import jax
from configs import synthetic
from icre_jax.data.ready import count_data, prepare_data
from icre_jax.machine.screen import Screen
from icre_jax.settings import parse
from rich.console import Console

people = {"seed": 1, "num_train_ids": 12, "num_val_ids": 1, "num_test_ids": 1, "num_images_per_camera": 1}
config = synthetic.get_config()
config.data.image_size, config.loss.icg_weight = (128, 64), 1.0
config.data.update(data_dir="people", prepared_dir="prepared", train_splits=("train",))
config.data.synthetic.update(people, num_workers=0)
config.sampling.update(num_ids_per_batch=4, num_images_per_id=2)
config.optimizer.update(name="sgd", enhancement_name="sgd")
settings = parse(config)
prepared = prepare_data(settings.data, Screen(Console(quiet=True)))
print(*count_data(prepared), sep="\n")
print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, JAX {jax.__version__}")

# %% [markdown]
# ## One batch
#
# $P$ identities, and of each $K$ images in each of the two modalities: $B = 2PK$ rows, here $2 \cdot 4 \cdot 2 = 16$
# **[I]**. Rows come in pairs, an even row is visible and the odd row after it infrared, of the same person. So every
# identity has both modalities in every batch, without which the ICG loss would be undefined.
#
# What is drawn is a function of the seed and the position alone. grain can therefore spread batches over threads and
# processes, and a run that is resumed goes on with the batch that would have come next.
#
# Augmentation **[I]**: padding and a random crop, mirroring, and for visible images one of their channels, or their
# grey value, in place of all three: infrared has no colour, so the network should not rely on it. That is why the upper
# images are grey.

# %%
from contextlib import closing

import matplotlib.pyplot as plt
from icre_jax.data.pipeline import RecordSource, training_batches
from icre_jax.data.plan import BalancedPlan

source = RecordSource(prepared, settings.data.train_splits)
plan = BalancedPlan(source.index, **settings.sampling.model_dump(), num_batches=1, seed=0)
with closing(training_batches(source, plan, data=settings.data, settings=settings.augment, seed=0)) as batches:
    batch = next(batches)
figure, axes = plt.subplots(2, 8, figsize=(10, 5.6), layout="constrained")
for row, axis in enumerate(axes.T.flat):
    axis.imshow(batch["image"][row])
    axis.set_title(f"row {row}, person {batch['label'][row]}", fontsize=8)
    axis.set_axis_off()

# %% [markdown]
# ## Two streams
#
# A ResNet with two streams **[P]**. Each modality $m$ has a stem of its own; all that follows is shared **[I]**:
#
# $$
# x_m = \mathrm{maxpool}(\mathrm{ReLU}(\mathrm{BN}(\mathrm{conv}_{7 \times 7 / 2}(\text{image})))), \qquad
# F_i = \mathrm{layer}_i(F_{i-1}), \quad F_0 = x
# $$
#
# `modality="paired"` sends even rows through the visible stem and odd rows through the infrared one, and puts them back
# into the order of the batch. Every map comes out by its name: no hooks. An image that goes through its stem alone must
# give the same vector, which the last line looks at.

# %%
import icre_jax
import numpy as np
from icre_jax.engine.forward import normalize_images
from icre_jax.models.resnet import STAGES

net = icre_jax.load("synthetic")
images = normalize_images(batch["image"])
run = jax.jit(net.network.apply, static_argnames=("modality", "train"))
outputs, maps = run(net.variables, images, modality="paired", train=False)
for name in ("stem", *STAGES):
    print(f"{name:6}  {maps['stages'][name].shape}")
alone, _ = run(net.variables, images[::2], modality="visible", train=False)
print("largest difference:", np.abs(alone["embeddings"] - outputs["embeddings"][::2]).max())

# %% [markdown]
# ## MPFR: what the shallow stages know
#
# Modality-specific attributes are easily lost on the way to the deep layers; MPFR collects shallow features of the
# shared branches, so that they are kept **[P]**. Three stages are brought to one size and width, each gets a spatial
# mask, and they are fused into one map, $F_{ig}$ **[S]**; the operators are **[I]**:
#
# $$
# \begin{aligned}
# T_i &= \mathrm{pool}_{h \times w}(\mathrm{ReLU}(\mathrm{BN}(\mathrm{conv}_{1 \times 1}(F_i)))) \\
# M_i &= \sigma(\mathrm{conv}_{1 \times 1}(T_i)) \\
# F_{ig} &= \mathrm{ReLU}(\mathrm{BN}(\mathrm{conv}_{1 \times 1}(\mathrm{concat}_i(M_i T_i))))
# \end{aligned}
# $$
#
# The part can be run by itself: it is a Flax module, and its arrays are a branch of the tree. A mask is as small as the
# deep map, here 8 by 4 places.

# %%
part = {collection: tree["mpfr"] for collection, tree in net.variables.items()}
guide, masks = net.network.mpfr.apply(part, maps["stages"], maps["stages"]["layer4"], train=False)
print("F_ig", guide.shape, "largest difference:", np.abs(guide - maps["guide"]).max())
figure, axes = plt.subplots(2, 4, figsize=(7, 6), layout="constrained")
for row, line in enumerate(axes):
    line[0].imshow(batch["image"][row])
    line[0].set_ylabel(("visible", "infrared")[row])
    for tap, axis in zip(net.network.mpfr.taps, line[1:], strict=True):
        shown = axis.imshow(masks[row, :, :, tap - 1], vmin=0, vmax=1)
        axis.set_title(f"$M_{tap}$, of layer{tap}")
figure.colorbar(shown, ax=axes, shrink=0.6)
_ = plt.setp(axes, xticks=[], yticks=[])

# %% [markdown]
# ## SDCE: what the deep features make of it
#
# A transformer of two stages, cross-attention and then self-attention, and after it a non-linear refinement **[S]**.
# That the deep features $F_4$ ask and $F_{ig}$ answers is **[I]**, as are Pre-LayerNorm, heads and the gate:
#
# $$
# \begin{aligned}
# X_0 &= \mathrm{flatten}(F_4)\, W_{in}, \qquad S = \mathrm{flatten}(F_{ig}) \\
# X_1 &= X_0 + \mathrm{MHA}(Q = \mathrm{LN}(X_0),\; K = V = \mathrm{LN}(S)) && \text{distil} \\
# X_2 &= X_1 + \mathrm{MHA}(Q = K = V = \mathrm{LN}(X_1)) && \text{enhance} \\
# X_3 &= X_2 + \mathrm{MLP}(\mathrm{LN}(X_2)) && \text{refine} \\
# \Delta &= \mathrm{BN0}(\mathrm{conv}_{1 \times 1}(\mathrm{unflatten}(X_3))), \qquad
# F_{en} = F_4 + \Delta && \text{gate}
# \end{aligned}
# $$
#
# BN0 is a BatchNorm whose scale starts at a small value, 0.1, so that a new network is nearly its backbone. The printed
# lines say how long each summand of $X_3$ is (`embed` is $X_0$). In the image, two places of $F_4$ (white dots) ask,
# and bright places are looked at, as the mean of the heads. Mind what such a map proves: without all that SDCE adds,
# this network finds nearly as many people (`docs/export.md`, "The networks in the box").

# %%
part = {collection: tree["sdce"] for collection, tree in net.variables.items()}
deep, h, w = maps["stages"]["layer4"], *guide.shape[1:3]
(delta, _), seen = net.network.sdce.apply(part, deep, guide, train=False, capture_intermediates=True)
for name in ("embed", "cross_attention", "self_attention", "mlp_out"):
    summand = jax.tree.leaves(seen["intermediates"][name]["__call__"])[0]
    print(f"{name:16} {summand.shape}  mean length {np.linalg.norm(summand, axis=-1).mean():.2f}")
print(f"F_en - F_4 - Delta: {np.abs(maps['enhanced'] - deep - delta).max():.1e}")
figure, axes = plt.subplots(2, 5, figsize=(8.5, 6), layout="constrained")
for row, line in enumerate(axes):
    line[0].imshow(batch["image"][row])
    for axis, (kind, place) in zip(line[1:], [(k, p) for k in ("cross", "self") for p in (1, 4)], strict=True):
        axis.imshow(maps["attention"][kind][row].mean(axis=0)[place * w + w // 2].reshape(h, w), vmin=0)
        axis.plot(w // 2, place, "wo")
        axis.set_title(f"{kind}-attention", fontsize=9)
_ = plt.setp(axes, xticks=[], yticks=[])

# %% [markdown]
# ## Head: GeM and the BN neck
#
# All of it is **[I]**:
#
# $$
# f = \mathrm{GeM}(F_{en}) = \Bigl(\tfrac{1}{hw} \sum_{h, w} \max(F_{en}, 10^{-6})^p\Bigr)^{1/p}, \quad p = 3, \qquad
# z = \mathrm{BN}(f)
# $$
#
# $p = 1$ is the mean and $p = \infty$ the maximum. Classification acts on $z$, which the neck centers and scales
# channel by channel; retrieval compares $z$ by cosine. The image shows these cosines for the batch: rows are infrared
# images, columns visible ones. Of one person are the squares of two by two along the diagonal.

# %%
from icre_jax.models.head import gem_pool

f = gem_pool(maps["enhanced"], p=net.settings.model.gem_p)
neck, running = net.variables["params"]["head"]["neck"], net.variables["batch_stats"]["head"]["neck"]
z = (f - running["mean"]) / np.sqrt(running["var"] + 1e-5) * neck["scale"]
print("largest difference:", np.abs(z - outputs["embeddings"]).max())
unit = z / np.linalg.norm(z, axis=1, keepdims=True)
figure, axis = plt.subplots(figsize=(4.5, 4), layout="constrained")
figure.colorbar(axis.imshow(unit[1::2] @ unit[::2].T, cmap="viridis"), label="cosine")
labels = [f"person {label}" for label in batch["label"][::2]]
axis.set_xticks(range(8), labels, rotation=90)
axis.set_yticks(range(8), labels)
_ = axis.set(xlabel="visible", ylabel="infrared")

# %% [markdown]
# ## The ICG loss, seen to move
#
# ICG has a center $c_y^m$ for each identity $y$ and modality $m$ **[S]**. The form below, "relative", is **[I]**, and
# so are its margins $\rho_1 = \rho_2 = 0.3$; $m'$ is the other modality, $d$ the Euclidean distance:
#
# $$
# L_{icg} =
# \operatorname*{mean}_{y, m} \Bigl[\rho_1 + d(c_y^m, c_y^{m'}) - \min_{j \ne y,\, n} d(c_y^m, c_j^n)\Bigr]_+ +
# \operatorname*{mean}_{\text{rows}} \Bigl[\rho_2 + d(f, c_y^{m'}) - \min_{j \ne y,\, n} d(f, c_j^n)\Bigr]_+
# $$
#
# Here there is no network: $f$ are 36 points in the plane, three people (colours), each with six visible (circles) and
# six infrared points (triangles), and it is the points themselves that take steps down the gradient. At first the blue
# circles and the orange triangles lie on top of each other, and blue is far from blue. At the end the loss is next to
# 0, and all comes to rest: every center, and every point, is nearer to its own person's center in the other modality
# than to any center of anybody else, by the margin.
#
# (In training $z / \lVert z \rVert$ takes the place of $f$ by default **[I]**. With $f$ as it is, a network can lower
# the loss by pulling everything together, which `docs/method.md` reports.)

# %%
import functools

from icre_jax.losses.distances import gram_matrix
from icre_jax.losses.icg import icg_terms

centers = np.array([[(0.9, 0), (1.4, -0.9)], [(0.4, 0.8), (0.9, -0.1)], [(-0.6, 0.7), (-0.1, -0.2)]])
person, modality = np.repeat(np.arange(3), 12), np.tile([0, 1], 18)
points = centers[person, modality] + np.random.default_rng(1).normal(0, 0.18, (36, 2))
terms = functools.partial(icg_terms, labels=person, modality=modality, form="relative", rho1=0.3, rho2=0.3)
icg = jax.jit(jax.value_and_grad(lambda f: sum(terms(gram_matrix(f)).values())))
figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), sharex=True, sharey=True, layout="constrained")
for step in range(31):
    loss, gradient = icg(points)
    if step in (0, 5, 10, 30):
        axis = axes[(0, 5, 10, 30).index(step)]
        axis.set_title(f"after {step} steps: {loss:.3f}")
        for m, marker in enumerate("o^"):
            axis.scatter(*points[modality == m].T, c=[f"C{y}" for y in person[modality == m]], marker=marker)
    points = points - 0.3 * gradient

# %% [markdown]
# ## One training step, twice
#
# $L = L_{id} + \lambda L_{icg}$, and no other loss **[P]**; $L_{id}$ is the cross-entropy over the training identities,
# $\lambda = 1$ **[I]**. A step is a pure function of the state and a batch. It can be run in two ways: `jit` over a
# mesh of devices, where the batch is one array that happens to be spread, and `pmap`, where each device sees its own
# rows and the step gathers outputs before the loss, and averages BatchNorm's statistics and the gradient. Both act on
# the global batch: the centers of ICG are those of all rows, wherever they lie.
#
# The two must agree up to rounding, in every number that is logged and in every weight; if not, the cell fails. ReLU,
# max-pooling and the hinges of ICG have kinks: where rounding puts a value on the other side of one, the gradient jumps
# a little. So its norm may differ by 1 %, and a weight by a fiftieth of the longest way that one takes in this step; a
# step that forgot to gather its outputs would be off by several times that.

# %%
from icre_jax.engine.parallel import make_mesh, make_state, make_train_step
from icre_jax.engine.program import build_program
from jax.flatten_util import ravel_pytree

program = build_program(settings, num_classes=plan.num_classes, steps_per_epoch=1)
mesh = make_mesh(plan.batch_size)
states, metrics = {}, {}
for parallel in ("jit", "pmap"):
    step = make_train_step(mesh, program, parallel=parallel)
    states[parallel], metrics[parallel] = jax.device_get(step(make_state(mesh, 0, program), batch))
print(f"{mesh.size} devices")
for name, value in metrics["jit"].items():
    print(f"{name:18}  {value:.6f}  {metrics['pmap'][name]:.6f}")
    np.testing.assert_allclose(value, metrics["pmap"][name], rtol=1e-2 if name == "gradient_norm" else 1e-4)
weights = (state.params for state in (make_state(mesh, 0, program), *states.values()))
start, jitted, pmapped = (ravel_pytree(tree)[0] for tree in weights)
moved, difference = np.abs(jitted - start).max(), np.abs(jitted - pmapped).max()
print(f"weights move by up to {moved:.1e}; the two ways differ by up to {difference:.1e}")
assert difference < moved / 50

# %% [markdown]
# ## The same network in NNX
#
# The network is written in Flax's Linen. `nnx.bridge` makes it a module of NNX, Flax's newer interface, which carries
# its arrays with it.

# %%
from flax import nnx

model = nnx.bridge.ToNNX(net.network)
for name, branch in nnx.bridge.variables.linen_vars_to_nnx_attrs(net.variables).items():
    setattr(model, name, nnx.data(branch))
again, _ = model(images, modality="paired", train=False)
print("largest difference:", np.abs(again["embeddings"] - outputs["embeddings"]).max())

# %% [markdown]
# ## From here
#
# Training is this step, again and again, with a schedule and checkpoints: `train_llcm_tpu.ipynb` in this folder. What a
# trained network finds, and where it looks: `explore_retrieval.ipynb`. Every switch of the parts above is a field of
# the config: `docs/method.md`.
