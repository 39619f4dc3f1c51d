"""What a config is and costs, as tables for people."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from icre_jax.costs.compare import Comparison
from icre_jax.costs.compiled import Cost
from icre_jax.costs.parameters import ModuleRow
from icre_jax.costs.slices import MOST_ON_A_DEVICE, SliceCost
from icre_jax.sourced import Applied


def modules_table(rows: Sequence[ModuleRow], image_size: tuple[int, int]) -> Table:
    """Parameters and output shape per module; the parts of a module stand indented below it."""
    view = _table(f"Parameters and output shapes of one {image_size[0]}x{image_size[1]} image")
    view.add_column("module")
    for header in ("parameters", "share", "output"):
        view.add_column(header, justify="right")
    for row in rows:
        indent = "" if "/" not in row.name else "  "
        cells = (indent + row.name, f"{row.num_parameters:,}", f"{row.share:.2%}", str(list(row.output_shape)))
        view.add_row(*(Text(cell) for cell in cells), style="bold" if row.is_total else None)
    total = sum(row.num_parameters for row in rows if "/" not in row.name)
    view.add_section()
    view.add_row("total", f"{total:,}", f"{1:.2%}", "", style="bold")
    return view


def cost_table(training: Cost, embedding: Cost) -> Table:
    """FLOPs and memory of the two programs."""
    view = _table("FLOPs and memory as XLA counts them; nothing was run")
    view.add_column("")
    for header in ("step of training", "embedding"):
        view.add_column(header, justify="right")
    pairs = (training, embedding)

    def add(name: str, cells: Sequence[str]) -> None:
        view.add_row(name, *cells)

    add("images per call", [f"{cost.num_images}" for cost in pairs])
    add("devices", [f"{cost.num_devices}" for cost in pairs])
    add("FLOPs per image", [_number(cost.flops_per_image, "FLOPs") for cost in pairs])
    add(
        "  XLA's count after compiling, for comparison",
        [f"{cost.compiled_flops / cost.flops - 1:+.1%}" for cost in pairs],
    )
    view.add_section()
    add("arguments: weights and running statistics", [_number(cost.variable_bytes, "bytes") for cost in pairs])
    add("arguments: state of the optimizer", [_number(cost.optimizer_bytes, "bytes") for cost in pairs])
    add("arguments: the batch (uint8 images, labels)", [_number(cost.batch_bytes, "bytes") for cost in pairs])
    add("results that overwrite no argument", [_number(cost.output_bytes, "bytes") for cost in pairs])
    add("temporaries: activations, gradients, scratch", [_number(cost.temporary_bytes, "bytes") for cost in pairs])
    add("  per image", [_number(cost.temporary_bytes_per_image, "bytes") for cost in pairs])
    add("held while it runs, per device", [_number(cost.peak_bytes, "bytes") for cost in pairs])
    view.caption, view.caption_justify = (
        "A multiplication and an addition are 2 FLOPs. Bytes are of one device. The step writes its new state over the "
        "old one.",
        "left",
    )
    return view


def slice_table(found: SliceCost, largest: int) -> Table:
    """The step of training on a slice of TPUs."""
    cost = found.cost
    more = ", or more" if largest >= MOST_ON_A_DEVICE * cost.num_devices else ""
    view = _table(f"A step of training compiled for {cost.num_devices} devices of {found.name}; nothing was run")
    view.add_column("")
    view.add_column("", justify="right")
    for name, value in (
        ("images per step, on all devices", f"{cost.num_images}"),
        ("largest step that fits, images (to a sixteenth)", f"{largest}{more}"),
        ("per device: memory", _number(found.hbm_bytes, "bytes")),
        ("  held while it runs", _number(cost.peak_bytes, "bytes")),
        ("  arguments: weights, optimizer, its share of the batch", _number(cost.argument_bytes, "bytes")),
        ("  temporaries: activations, gradients, scratch", _number(cost.temporary_bytes, "bytes")),
        ("  read and written in a step, as XLA counts it", _number(found.bytes_accessed, "bytes")),
        ("    of it from and to HBM, by the arrays' layouts", _number(sum(found.hbm_traffic.values()), "bytes")),
        ("  FLOPs of a step", _number(cost.flops / cost.num_devices, "FLOPs")),
        *((f"  {row.kind}, {row.count} in a step", _number(row.num_bytes, "bytes")) for row in found.collectives),
    ):
        view.add_row(name, value)
    view.caption, view.caption_justify = (
        "Memory is that of TPU's tiles, whose edges are padded. Bytes of an exchange are those of its results on one "
        "device.",
        "left",
    )
    return view


def choices_table(rows: Sequence[Applied]) -> Table:
    """What of the config is sourced and what inferred."""
    view = _table("What is sourced and what is inferred in this config")
    view.add_column("part", no_wrap=True)
    view.add_column("choice", overflow="fold")
    view.add_column("tag", no_wrap=True)
    view.add_column("in this config", overflow="fold")
    part = ""
    for row in rows:
        values = "\n".join(f"{name} = {value}" for name, value in row.values.items())
        shown = row.choice.part if row.choice.part != part else ""
        part = row.choice.part
        view.add_row(*(Text(cell) for cell in (shown, row.choice.what, row.tag, values)))
    view.caption, view.caption_justify = (
        "P: the authors' own words. S: a summary by others. I: our reading. -: no part of ICRE, or another value than "
        "the source names.",
        "left",
    )
    return view


def comparison_table(rows: Sequence[Comparison], name: str) -> Table:
    """A config beside its baseline."""
    view = _table("Beside the baseline of the same config: backbone, head and ID loss alone")
    view.add_column("")
    for header in (name, "baseline", "ratio"):
        view.add_column(Text(header), justify="right")
    for row in rows:
        view.add_row(row.name, _number(row.ours, row.unit), _number(row.baseline, row.unit), f"{row.ratio:.3f}")
    return view


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_style="bold"
    )


def _number(value: float, unit: str) -> str:
    if unit == "FLOPs":
        return f"{value / 1e9:,.3f} GFLOPs"
    if unit == "bytes":
        return f"{value / 2**20:,.2f} MiB"
    return f"{value:,.3f} s" if unit == "s" else f"{value:,.0f}"
