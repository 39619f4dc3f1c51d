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
# # Who is it? Search a gallery across modalities
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# An infrared image asks, a gallery of visible images answers. This notebook ranks a gallery, lets the search say "not
# in the gallery", shows where the network looks and how far people lie apart, and then takes your own images.
#
# Nothing is trained, and no data is needed: the network comes with the package, and the people are rendered. It was
# trained on rendered people only, so it says nothing about real ones. `NETWORK` takes one that you trained yourself; if
# that was on real people, mind that those of the next cells are not.
#
# To open it in Colab: put the repository's folder into your Drive and double-click this file in it, or give the file to
# the page behind the badge, under Upload. Then run all.

# %% tags=["parameters"]
NETWORK = ""  # in your Drive: the work folder of a run, or an export of it; "" takes the network in the package
OWN_IMAGES = ""  # in your Drive: a folder with visible/ and infrared/ in it; "" leaves the last step out
CODE = "icre_jax"  # the code: its folder in your Drive, or a Git address (https://... or git+https://...@branch)

import sys
from pathlib import Path

drive = Path.cwd()
if "google.colab" in sys.modules and (NETWORK or OWN_IMAGES or "://" not in CODE):
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
# ## The network
#
# `icre_jax.load` takes the word "synthetic", the work folder of a run, or an export. What it gives turns images of one
# modality into vectors of length 1; the inner product of two of them is their cosine, from -1 to 1.

# %%
import icre_jax

net = icre_jax.load(drive / NETWORK if NETWORK else "synthetic")
print(net)
print(f"trained on {net.provenance['data']}, {len(net.class_pids)} identities")

# %% [markdown]
# ## The people
#
# A hundred rendered people, each seen once by every camera of SYSU-MM01: 1, 2, 4 and 5 see visible light, 3 and 6
# near-infrared. A person is a seed and a number. The network in the package has seen those of seed 0; these are of seed
# 1, so they are new to it. Numbers 1 to 30 will be in the gallery, 31 to 40 are strangers, and 41 to 100 are kept apart
# for the threshold.

# %%
import matplotlib.pyplot as plt
import numpy as np
from icre_jax import rendering
from IPython.display import display

how = {"seed": 1, "difficulty": rendering.DIFFICULTIES["default"], "image_size": (128, 64)}
people = [rendering.sample_person(1, number) for number in range(1, 101)]
shots = [(person, camera) for person in people for camera in rendering.SYSU_MM01_CAMERAS]
images = np.stack([rendering.render_image(person, camera, 1, **how) for person, camera in shots])
pid, camid = np.array([(person.pid, camera.camid) for person, camera in shots]).T
infrared = np.isin(camid, (3, 6))
figure, axes = plt.subplots(2, 6, figsize=(7, 5.2), layout="constrained")
for i, axis in enumerate(axes.flat):
    axis.imshow(images[i])
    axis.set_title(f"person {pid[i]}, camera {camid[i]}", fontsize=7)
    axis.set_axis_off()

# %% [markdown]
# ## Embed
#
# Each modality has a stem of its own, so that the network has to be told which one an image is of.

# %%
vectors = np.empty((len(images), net.size), np.float32)
vectors[~infrared] = net.embed(images[~infrared], modality="visible")
vectors[infrared] = net.embed(images[infrared], modality="infrared")
gallery = np.flatnonzero(~infrared & (pid <= 30))
queries = np.flatnonzero(infrared & (pid <= 30))
print(f"{len(queries)} infrared queries, {len(gallery)} visible images of 30 people; vectors of {net.size} numbers")

# %% [markdown]
# ## Rank
#
# The search is exact: every row of the gallery is compared. Rank-1 is the share of queries whose most similar image
# shows the right person; by chance it would be one in thirty. Below are four queries, evenly spaced and not picked,
# with the eight most similar images: green frames are right, red ones wrong. What is found are candidates, not
# identifications; a person has to decide. (The protocol of SYSU-MM01 hides from a query of camera 3 the images of
# camera 2, which hangs at the same place; nothing is hidden here.)

# %%
found = net.search(vectors[queries], vectors[gallery], modality="infrared", top=8)
ranked = gallery[found.indices]
print(f"Rank-1: {(pid[ranked[:, 0]] == pid[queries]).mean():.1%}")
figure, axes = plt.subplots(4, 9, figsize=(9, 9), layout="constrained")
for line, i in zip(axes, range(0, len(queries), 15), strict=True):
    for axis, shown in zip(line, [queries[i], *ranked[i]], strict=True):
        axis.imshow(images[shown])
        axis.set_title(f"person {pid[shown]}", fontsize=8)
        axis.set(xticks=[], yticks=[])
        right = pid[shown] == pid[queries[i]]
        plt.setp(axis.spines.values(), linewidth=3, color="C2" if right else "C3", visible=axis is not line[0])
    line[0].set_ylabel("query")

# %% [markdown]
# ## "Not in the gallery": where to draw the line
#
# A search always finds a most similar image, also of people who are not there. A threshold decides whether it is good
# enough, and two rates say what the threshold is worth (ISO/IEC 19795-1): FPIR, the share of searches for strangers
# that still give a candidate, and FNIR, the share of searches for enrolled people whose own images stay below it.
#
# The threshold is learned from the 60 people who are in no gallery here. They are divided at random into 30 enrolled
# ones and 30 strangers, 20 times. Asked for is an FPIR of at most 10 %. The intervals (95 %) are wide, as 30 people
# stand behind each rate.

# %%
from icre_jax.evals.ranking import Embedded
from icre_jax.retrieval.calibration import calibrate

names = np.array([f"{p}/{c}" for p, c in zip(pid, camid, strict=True)])
sides = [(pid > 40) & infrared, (pid > 40) & ~infrared]
held_out = [Embedded(vectors[side], pid=pid[side], camid=camid[side], path=names[side]) for side in sides]
modalities = {"query_modality": "infrared", "gallery_modality": "visible"}
known = calibrate(*held_out, fpir=0.1, model_hash=net.model_hash, origin=net.origin, **modalities)
for name, rate in (("FPIR", known.fpir), ("FNIR", known.fnir)):
    print(f"{name} {rate.value:.1%}, between {rate.low:.1%} and {rate.high:.1%}")
print(f"at a threshold of {known.threshold:.3f}, for a gallery of {known.num_enrolled} people")

# %% [markdown]
# ## The line, drawn
#
# The same threshold on the gallery above, which had no part in choosing it. Each dot is a search, placed at the
# similarity of its most similar image: in blue for the 30 people in the gallery, in orange for the 10 strangers. Right
# of the line a search gives candidates, left of it the answer is "not in the gallery".

# %%
strangers = np.flatnonzero(infrared & (pid > 30) & (pid <= 40))
figure, axis = plt.subplots(figsize=(8, 2.4), layout="constrained")
for height, (name, rows) in enumerate({"in the gallery": queries, "strangers": strangers}.items()):
    best = net.search(vectors[rows], vectors[gallery], modality="infrared", top=1).similarities[:, 0]
    axis.scatter(best, height + np.random.default_rng(0).uniform(-0.2, 0.2, len(best)), s=16, label=name)
    print(f"{name}: {(best >= known.threshold).sum()} of {len(best)} searches give candidates")
axis.axvline(known.threshold, color="black", linestyle=":")
axis.set(xlabel="similarity of the most similar image (cosine)", yticks=(0, 1), ylim=(-0.6, 1.6))
_ = axis.set_yticklabels(["in the gallery", "strangers"])

# %% [markdown]
# ## Where the network looks
#
# Grad-CAM of a pair: how much each place of the deep map adds to the similarity of the two images, as far as a linear
# picture holds. Above, the first query whose first candidate is right; below, the first one whose first candidate is
# wrong, if there is one. Heat says where the evidence for the similarity lies, not that the network is right, and it is
# coarse: the deep map of this network has 8 by 4 places.

# %%
from icre_jax.figures.heat import lay_over

right = pid[ranked[:, 0]] == pid[queries]
figure, axes = plt.subplots(2, 4, figsize=(6, 6.4), layout="constrained")
for line, i in zip(axes, (right.argmax(), right.argmin()), strict=True):
    pair = [queries[i], ranked[i, 0]]
    seen = net.explain(*images[pair], modalities=("infrared", "visible"))
    for k, shown in enumerate(pair):
        line[2 * k].imshow(seen.images[k])
        line[2 * k + 1].imshow(lay_over(seen.images[k], seen.heat[k]))
        line[2 * k].set_title(f"person {pid[shown]}", fontsize=9)
    line[1].set_title(f"similarity {seen.similarity:.2f}", fontsize=9)
_ = plt.setp(axes, xticks=[], yticks=[])

# %% [markdown]
# ## How far people lie apart
#
# Cosine distances, $1 - \cos$, between an infrared and a visible image: of all pairs that show one person, and of all
# that show two. The less the two histograms overlap, the easier the search. The paper shows such histograms of its own
# features.

# %%
from icre_jax.evals.distances import cross_modal_distances
from icre_jax.figures.histograms import Histogram, draw_histograms
from icre_jax.figures.style import styled

sides = [Embedded(vectors[rows], pid=pid[rows], camid=camid[rows], path=names[rows]) for rows in (gallery, queries)]
apart = cross_modal_distances(*sides)
kinds = {"one person": (apart.intra, apart.intra_mean), "two people": (apart.inter, apart.inter_mean)}
for name, (counts, mean) in kinds.items():
    print(f"{name}: {counts.sum()} pairs, mean distance {mean:.3f}")
shown = [Histogram(name, apart.edges, *found) for name, found in kinds.items()]
title = "30 people whom the network has not seen"
with styled():
    display(draw_histograms({net.origin: shown}, title, x_label="cosine distance", y_label="share of the pairs (%)"))

# %% [markdown]
# ## Your own images
#
# A folder in your Drive with two folders in it, `visible/` and `infrared/`, with images of people below them: one
# person each, cropped and upright. Every infrared image is searched for among the visible ones. Take a `NETWORK` that
# was trained on images like yours; that of the package knows rendered people only.
#
# Vectors of people are biometric data; `docs/responsible_use.md` says what that asks of you. The vectors are not
# stored, but the images that are shown stay in the notebook when it is saved: clear the outputs before you pass it on.

# %%
from icre_jax.data.collection import collect

own = drive / OWN_IMAGES
if OWN_IMAGES:
    files = {modality: collect(own / modality, modality).files for modality in ("infrared", "visible")}
    found = net.search(files["infrared"], net.embed(files["visible"], modality="visible"), modality="infrared", top=5)
    for i, asked in enumerate(files["infrared"][:10]):
        hits = [plt.imread(files["visible"][row]) for row in found.indices[i]]
        figure, axes = plt.subplots(1, 1 + len(hits), figsize=(8, 3), squeeze=False, layout="constrained")
        for axis, shown in zip(axes[0], [plt.imread(asked), *hits], strict=True):
            axis.imshow(shown, cmap="gray")
            axis.set_axis_off()
        for axis, similarity in zip(axes[0, 1:], found.similarities[i], strict=True):
            axis.set_title(f"{similarity:.2f}")
        axes[0, 0].set_title(asked.name)
else:
    print("No folder of your own is named in the first cell.")

# %% [markdown]
# ## From here
#
# The same as commands, with an index on disk, a report and a page for the browser: `docs/search_gallery.md`,
# `docs/serve.md`. How a network is made: `icre_step_by_step.ipynb` for the method, `train_llcm_tpu.ipynb` for the
# training.
