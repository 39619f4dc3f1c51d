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
# Trains ICRE on LLCM with whatever this runtime has, goes on after a disconnect, scores the network and takes it away
# as an orbax checkpoint. LLCM is given out by its authors on request: put its archive into your Drive. Without it the
# notebook trains on the built-in synthetic people, which needs no download and takes a few minutes even on a CPU.
#
# Fill in the next cell, then run all. After a disconnect: run all again.

# %% tags=["parameters"]
DRIVE_FOLDER = "icre_runs"  # in your Drive: the work folder, what is prepared, the exported network
LLCM_ARCHIVE = ""  # in your Drive, for example "data/LLCM.zip"; "" trains on the synthetic people
WEIGHTS = ""  # in your Drive: ImageNet weights as .safetensors (docs/pretrained.md); "" starts from scratch
CODE = "icre_jax"  # in your Drive, or a Git address: the code, where it is not installed
FIELDS = {}  # fields of the config, for example {"sampling.num_ids_per_batch": 8, "parallel": "pmap"}

# %% [markdown]
# ## What this runtime has
#
# Runtime → Change runtime type offers TPUs and GPUs. The same code runs on all of them.

# %%
import jax

print(f"{jax.device_count()} x {jax.devices()[0].device_kind} ({jax.default_backend()}), JAX {jax.__version__}")

# %% [markdown]
# ## Your Drive
#
# Checkpoints go there, so they outlive the runtime. Outside of Colab the folder lies beside the notebook.

# %%
import importlib.util
from pathlib import Path

drive = Path.cwd()
if importlib.util.find_spec("google.colab"):
    from google.colab import drive as mount

    mount.mount("/content/drive")
    drive = Path("/content/drive/MyDrive")
home = (drive / DRIVE_FOLDER).resolve()
home.mkdir(parents=True, exist_ok=True)
print(home)

# %% [markdown]
# ## The code
#
# Installed only if it is not there. The runtime's own JAX stays: it fits its accelerator, so the installation may not
# change it and says so if the two do not go together.

# %%
import subprocess
import sys

if importlib.util.find_spec("icre_jax") is None:
    kept = Path("keep.txt")
    kept.write_text(f"jax=={jax.__version__}\n")
    source = str(drive / CODE) if (drive / CODE).exists() else CODE
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(kept), source], check=True)

# %% [markdown]
# ## The data
#
# The archive is unpacked onto the runtime's own disk: thousands of small files are slow to read from Drive.

# %%
import shutil

archive = drive / LLCM_ARCHIVE
data_dir = Path("data/llcm").resolve()
if LLCM_ARCHIVE and not data_dir.exists():
    shutil.unpack_archive(archive, data_dir.parent / "unpacked")
    (tree,) = (data_dir.parent / "unpacked").rglob("idx")  # wherever in the archive the tree begins
    tree.parent.rename(data_dir)

# %% [markdown]
# ## The config
#
# That of LLCM, or that of the synthetic people. `FIELDS` of the first cell are set on it, as `--config.some.field=...`
# does on the command line. Every field is checked before anything is done.

# %%
from configs import llcm, synthetic
from icre_jax.settings import parse

config = llcm.get_config() if LLCM_ARCHIVE else synthetic.get_config()
if LLCM_ARCHIVE:
    config.data.data_dir = str(data_dir)
if WEIGHTS:
    config.pretrained = str(drive / WEIGHTS)
config.data.prepared_dir = str(home / "prepared")
config.update_from_flattened_dict(FIELDS)
settings = parse(config)
print(f"{settings.name}: ResNet-{settings.model.depth} at {settings.data.image_size}, {settings.model.dtype}")

# %% [markdown]
# ## Is the data what it should be?
#
# Counts against the published ones, lists, identities, and every picture (some minutes on LLCM). The prepared records
# in Drive are enough for later starts; then there is nothing to check.

# %%
from icre_jax.data.verification import verify

if data_dir.exists():
    found = verify("llcm", data_dir, num_workers=4)
    print("sound" if found.sound else "\n".join(found.errors))

# %% [markdown]
# ## Prepare
#
# Every picture is decoded once, and kept as the file's own bytes in ArrayRecord files.

# %%
from rich.console import Console

from icre_jax.prepare import describe_data, prepare_data
from icre_jax.runlog import Screen

console = Console(width=120)
prepared = prepare_data(settings.data, Screen(console))
console.print(describe_data(prepared))

# %% [markdown]
# ## Train
#
# Begins, or goes on behind the last checkpoint in Drive: after a disconnect run all cells again. Interrupting this cell
# saves the state first. It ends with a table of scores; they are not those of a paper unless the data is.

# %%
from icre_jax.train import train_and_evaluate

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
# Here with mirrored pictures averaged in. Every table says how it was measured.

# %%
from icre_jax.evals.tables import table
from icre_jax.evaluate import Measure, evaluate_checkpoint

flipped = evaluate_checkpoint(
    workdir, step=None, out=workdir / "flip", screen=Screen(console), measure=Measure(flip=True)
)
console.print(table(flipped))

# %% [markdown]
# ## Take the network away
#
# Parameters and running statistics as an orbax checkpoint, with the config and the identity of each class. What is
# written is read back and must embed real pictures to the same bits. docs/export.md shows the ten lines that use it.

# %%
from icre_jax.export import export

exported = home / "exported"
if not exported.exists():
    export(workdir, exported, step=None, screen=Screen(console))
print(sorted(path.name for path in exported.iterdir()))
