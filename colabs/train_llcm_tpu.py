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
# # ICRE on LLCM, on a TPU, a GPU or a CPU
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# To open it there: put the repository's folder into your Drive and double-click this file in it, or let the badge open
# Colab and give it this file under Upload. (Colab opens a file by itself only from a public address, and none is known
# here.)
#
# Trains ICRE on LLCM with whatever this runtime has, goes on after a disconnect, scores the network and takes it away
# as an orbax checkpoint. LLCM is given out by its authors on request: put its archive into your Drive. Without it the
# notebook trains on the built-in synthetic people, which needs no download and takes a few minutes even on a CPU.
#
# Fill in the next cell, then run all. After a disconnect: run all again. Checkpoints go to your Drive, so they outlive
# the runtime; outside of Colab the folder lies beside the notebook.

# %% tags=["parameters"]
DRIVE_FOLDER = "icre_runs"  # in your Drive: the work folder, what is prepared, the exported network
LLCM_ARCHIVE = ""  # in your Drive, for example "data/LLCM.zip"; "" trains on the synthetic people
WEIGHTS = ""  # in your Drive: ImageNet weights as .safetensors (docs/pretrained.md); "" starts from scratch
CODE = "icre_jax"  # the code: its folder in your Drive, or a Git address (https://... or git+https://...@branch)
FIELDS = {}  # fields of the config, for example {"sampling.num_ids_per_batch": 8, "parallel": "pmap"}

import sys
from pathlib import Path

drive = Path.cwd()
if "google.colab" in sys.modules:
    from google.colab import drive as mount

    mount.mount("/content/drive")
    drive = Path("/content/drive/MyDrive")
home = (drive / DRIVE_FOLDER).resolve()
home.mkdir(parents=True, exist_ok=True)
print(home)

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
# ## Can this runtime train?
#
# Versions, devices, disk, and one step of a tiny network. Runtime → Change runtime type offers TPUs and GPUs; the same
# code runs on all of them. If something is broken, the notebook ends here, and the lines say what to do.

# %%
import jax
from icre_jax import doctor

print(f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()}), JAX {jax.__version__}")
if doctor.main(["--workdir", str(home / "doctor")]):
    raise RuntimeError("This runtime cannot train. What is broken, and what to do, stands above.")

# %% [markdown]
# ## The data, and is it what it should be?
#
# The archive is unpacked onto the runtime's own disk: thousands of small files are slow to read from Drive. Then it is
# checked: counts against the published ones, lists, identities, and every image (some minutes). Data that is not
# sound ends the notebook. Without the archive, records that were prepared in Drive before are enough.

# %%
from icre_jax.data.verification import verify

archive, data_dir = drive / LLCM_ARCHIVE, Path("data/llcm").resolve()
if archive.is_file() and not data_dir.exists():
    shutil.unpack_archive(archive, data_dir.parent / "unpacked")
    (tree,) = (data_dir.parent / "unpacked").rglob("idx")  # wherever in the archive the tree begins
    tree.parent.rename(data_dir)
if LLCM_ARCHIVE and data_dir.exists():
    found = verify("llcm", data_dir, num_workers=4)
    if not found.sound:
        print(*found.errors, sep="\n")
        raise RuntimeError(f"LLCM is not what it should be: {len(found.errors)} errors, which stand above.")
    print("sound")
elif LLCM_ARCHIVE:
    print(f"{archive} is not there: going on with what was prepared in Drive before, if it was")

# %% [markdown]
# ## The config
#
# That of LLCM, or that of the synthetic people. `FIELDS` of the first cell are set on it, as `--config.some.field=...`
# does on the command line. Every field is checked before anything is done.
#
# A TPU multiplies in bfloat16; a product of float32 numbers takes it six of those. So there the network computes in
# bfloat16, with weights, statistics, head and losses in float32: `FIELDS` may say otherwise.

# %%
import jax

from configs import llcm, synthetic
from icre_jax.settings import parse

config = llcm.get_config() if LLCM_ARCHIVE else synthetic.get_config()
if LLCM_ARCHIVE:
    config.data.data_dir = str(data_dir)
if WEIGHTS:
    config.pretrained = str(drive / WEIGHTS)
config.model.dtype = "bfloat16" if jax.default_backend() == "tpu" else "float32"
config.data.prepared_dir = str(home / "prepared")
config.update_from_flattened_dict(FIELDS)
settings = parse(config)
print(f"{settings.name}: ResNet-{settings.model.depth} at {settings.data.image_size}, {settings.model.dtype}")

# %% [markdown]
# ## Prepare
#
# Every image is decoded once, and kept as the file's own bytes in ArrayRecord files.

# %%
from rich.console import Console

from icre_jax.data.ready import describe_data, prepare_data
from icre_jax.machine.screen import Screen

console = Console(width=120)
prepared = prepare_data(settings.data, Screen(console))
console.print(describe_data(prepared))

# %% [markdown]
# ## Train
#
# Begins, or goes on after the last checkpoint in Drive: after a disconnect run all cells again. Interrupting this cell
# saves the state first. It ends with a table of scores; they are not those of a paper unless the data is.

# %%
from icre_jax.training.loop import train_and_evaluate

workdir = home / settings.name
outcome = train_and_evaluate(settings, workdir, console=console)

# %% [markdown]
# ## What came out
#
# The report has everything in one file: scores, curves, rank lists, settings. Download it from the folder, or look at
# it here.

# %%
import base64

from IPython.display import IFrame, display

report = workdir / "report.html"
content = base64.b64encode(report.read_bytes()).decode()
display(IFrame(f"data:text/html;base64,{content}", width="100%", height=600))
print(report)

# %% [markdown]
# ## Score it in other ways
#
# Here with mirrored images averaged in. Every table says how it was measured. This and the export below are commands,
# `python -m icre_jax.evaluate` and `python -m icre_jax.export`, with the same words as on a command line.

# %%
from icre_jax import evaluate

_ = evaluate.main(["--workdir", str(workdir), "--flip"])

# %% [markdown]
# ## Take the network away
#
# Parameters and running statistics as an orbax checkpoint, with the config and the identity of each class. What is
# written is read back and must embed real images to the same bits.

# %%
from icre_jax import export

exported = home / "exported"
if not exported.exists():
    export.main(["--workdir", str(workdir), "--out", str(exported)])
print(sorted(path.name for path in exported.iterdir()))

# %% [markdown]
# ## Use it
#
# `icre_jax.load` takes the export (or the work folder) and needs none of the data it was trained on. Three infrared
# test images ask, up to 200 visible ones answer: the five most similar, with their cosines, in green where they show
# the right person and in red where they do not. `net.embed` and `net.search` take paths of files as well:
# `docs/python.md` has more, and `explore_retrieval.ipynb` goes on from here, with `NETWORK` set to this export.

# %%
import icre_jax
import matplotlib.pyplot as plt
import numpy as np
from icre_jax.data.images import decode

net = icre_jax.load(exported)
images, pids = {}, {}
for split, modality, most in (("query", 1, 3), ("gallery", 0, 200)):  # 1 is infrared, 0 visible
    index, records = prepared.index[split], prepared.source(split)
    rows = np.flatnonzero(index.modality == modality)
    rows = rows[:: -(-len(rows) // most)]
    images[split] = [decode(records[row]["image"], net.image_size) for row in rows.tolist()]
    pids[split] = index.pid[rows]
found = net.search(images["query"], net.embed(images["gallery"], modality="visible"), modality="infrared", top=5)
figure, axes = plt.subplots(len(found.indices), 6, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
for i, line in enumerate(axes):
    line[0].imshow(images["query"][i])
    for axis, hit, similarity in zip(line[1:], found.indices[i], found.similarities[i], strict=False):
        axis.imshow(images["gallery"][hit])
        axis.set_title(f"{similarity:.2f}", color="C2" if pids["gallery"][hit] == pids["query"][i] else "C3")
