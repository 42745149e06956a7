"""results/throughput.md from the records of results.throughput; what was not measured says so."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from longcot import lengths, rows
from longcot.hardware import GPUS
from longcot.recipe import load_recipe
from longcot.shapes import read_shapes
from results import figures

ROOT = Path(__file__).parent.parent
PAGE = "throughput.md"
RECIPES = ("recipes/qlora32b.yaml", "recipes/fp8lora32b.yaml")
ASKED = "h100"  # the device of the targets; its rows are there before anything was measured
LAYERS = (4, 12, 64)
TITLES = {
    "ours_qlora32b": "ours, NF4 base",
    "ours_fp8lora32b": "ours, FP8 base",
    "trl_best": "TRL at its best, NF4 base",
    "trl_plain": "plain TRL + PEFT + bitsandbytes, NF4 base",
    "unsloth": "Unsloth, NF4 base",
}
ABOUT = """\
<!-- generated from throughput/*.json; do not edit -->
# Throughput, side by side

`python -m results.throughput` times optimizer steps of one packed row each: the same rows, the same random
weights, seed, schedule and rank for all, one process a contender, on one machine in one go. Models cut to 4
and 12 layers come first, the whole one last. Figures are medians, quartiles in brackets.

- **ours**: `train.py`'s own path with the recipe as it stands.
- **plain TRL**: SFTTrainer with packing, QLoRA, checkpointing and sdpa, everything else as TRL has it.
- **TRL at its best**: 8-bit Adam, liger-kernel's layers, flash-attn where installed. Lent from here: the
  varlen attention kernel where flash-attn is missing, and keeping attention outputs, since TRL's own
  `selective` does not know that kernel and with PEFT on transformers 5.23 is refused or without effect.
  The difference to ours is what only ours does.
- **Unsloth**: its own loader, adapters and checkpointing.

MFU = model FLOP per token x tokens/s / the data sheet's dense bfloat16 rate; HFU the same with the FLOP
that are executed, recomputation and masked attention included. Model FLOP are forward and backward through
frozen and trained products, the head, and causal attention within documents, its backward as twice its
forward. Of the floor: the time that the least work takes at the rate of the large product measured just
before, over the time taken. Predictions are those of `--plan`, made for the cut; the peak is what torch
allocates, so the plan's 2 GB for context and fragments are left out on both sides.
"""
HEAD = (
    "| contender | layers | tokens/s | against plain TRL | predicted | off by | MFU | HFU | of the floor "
    "| peak, GB | predicted | off by |\n" + "|---" * 12 + "|"
)


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Every contender's record in `folder`, by file name."""
    return [{**rows.read_json(path), "name": path.stem} for path in sorted(folder.glob("*.json"))]


def page(records: list[dict[str, Any]]) -> str:
    """The whole page; `records` as `read_records` gives them."""
    on_gpu = [found for found in records if found["device"] != "cpu"]
    parts = [ABOUT]
    cards = {figures.slug(found["device"]): found["device"] for found in on_gpu}
    for name in dict.fromkeys([ASKED, *cards]):
        mine = [found for found in on_gpu if figures.slug(found["device"]) == name]
        parts += [f"## {cards.get(name, GPUS[ASKED].title)}", "", *table(mine, name == ASKED), ""]
        parts += slopes(mine)
    parts += ["## Predictions that missed by more than 10%", "", *missed(records), ""]
    if rehearsed := [found for found in records if found["device"] == "cpu"]:
        parts += ["## Rehearsal on CPU", "", *rehearsal(rehearsed), ""]
    parts += ["## Where the numbers come from", "", *provenance(records)]
    return "\n".join(parts).rstrip() + "\n"


def table(records: list[dict[str, Any]], asked: bool) -> list[str]:
    """One row a contender and cut; those that the targets ask for are there in any case."""
    by = {(found["contender"], found["layers"]): found for found in records}
    keys = [(contender, layers) for layers in LAYERS for contender in TITLES] if asked else []
    lines = [*map(str, HEAD.splitlines())]
    for key in dict.fromkeys([*keys, *by]):
        found = by.get(key) or {"contender": key[0], "layers": key[1], "status": "not run"}
        told = cells(found, by.get(("trl_plain", key[1])))
        lines.append(f"| {' | '.join(told)} |")
    return lines


def cells(found: dict[str, Any], plain: dict[str, Any] | None) -> list[str]:
    """A row of the table."""
    named = [title(found), str(found["layers"])]
    if found["status"] != "measured":
        predicted = found.get("predicted") or foresee(found["contender"], found["layers"])
        speed, peak = predicted["tokens_per_second"], predicted["peak_bytes"]
        told = [f"{speed:,.0f}" if speed else "-", f"{peak / 1e9:.1f}" if peak else "-"]
        return [*named, state(found), "-", told[0], *"-----", told[1], "-"]
    low, _, high = found["tokens_per_second_quartiles"]
    off, predicted = figures.deviations(found), found["predicted"]
    rate = predicted["tokens_per_second"]
    return [
        *named,
        f"{found['tokens_per_second']:,.0f} [{low:,.0f}, {high:,.0f}]",
        ratio(found, plain),
        f"{rate:,.0f}" if rate else "-",
        deviation(off.get("tokens_per_second")),
        f"{found['mfu']:.1%}",
        f"{found['hfu']:.1%}",
        f"{found['floor_share']:.1%}",
        f"{found['peak_bytes'] / 1e9:.1f}" if found["peak_bytes"] else "-",
        f"{predicted['peak_bytes'] / 1e9:.1f}",
        deviation(off.get("peak_bytes")),
    ]


def title(found: dict[str, Any]) -> str:
    """What a reader calls the contender."""
    known = TITLES.get(found["contender"])
    return known or found["contender"].replace("ours_", "ours, ")


def state(found: dict[str, Any]) -> str:
    """Why there are no figures."""
    reason = str(found.get("reason") or "").replace("|", "/")
    return found["status"] if found["status"] == "not installed" or not reason else (
        f"{found['status']}: {reason}"
    )  # fmt: skip


def foresee(contender: str, layers: int) -> dict[str, Any]:
    """The plan's prediction on the asked device for what was not run."""
    known = {f"ours_{Path(name).stem}": name for name in RECIPES}
    if contender not in {**known, **TITLES}:
        return {"tokens_per_second": None, "peak_bytes": None}
    recipe = load_recipe(str(ROOT / known.get(contender, RECIPES[0])), [])
    shapes = replace(read_shapes(recipe.model), layers=layers)
    setup = figures.setup_for(contender, recipe, shapes)
    length = figures.weighted(lengths.assumed(1000))
    return figures.predict(shapes, setup, length, GPUS[ASKED])


def ratio(found: dict[str, Any], plain: dict[str, Any] | None) -> str:
    """Times plain TRL's speed, with quartiles; only on the same rows."""
    if not plain or plain["status"] != "measured" or plain["rows"] != found["rows"]:
        return "-"
    low, middle, high = (
        rate / plain["tokens_per_second"] for rate in found["tokens_per_second_quartiles"]
    )
    return f"{middle:.2f}x [{low:.2f}, {high:.2f}]"


def deviation(off: float | None) -> str:
    """Measured over predicted, less one; a miss is printed bold."""
    if off is None:
        return "-"
    return f"**{off:+.0%}**" if abs(off) > figures.TOLERANCE else f"{off:+.0%}"


def slopes(records: list[dict[str, Any]]) -> list[str]:
    """Seconds a layer from two cuts, and what they make of the whole model."""
    lines = []
    for contender in dict.fromkeys(found["contender"] for found in records):
        mine = [f for f in records if f["contender"] == contender and f["status"] == "measured"]
        cuts = sorted(mine, key=lambda found: found["layers"])[:2]
        if len(cuts) < 2 or cuts[0]["rows"] != cuts[1]["rows"]:
            continue
        few, more = cuts
        one = (more["seconds"][1] - few["seconds"][1]) / (more["layers"] - few["layers"])
        rest = few["seconds"][1] - one * few["layers"]
        whole = few["tokens_per_step"] / (rest + one * LAYERS[-1])
        lines.append(
            f"- {title(few)}: {one * 1e3:.1f} ms a layer, {rest * 1e3:.1f} ms besides; "
            f"{LAYERS[-1]} layers by that: {whole:,.0f} tokens/s"
        )
    return ["From the cuts:", "", *lines, ""] if lines else []


def missed(records: list[dict[str, Any]]) -> list[str]:
    """Every miss with its explanation, which is written into the record by hand."""
    lines = []
    for found in records:
        for key, off in figures.misses(found).items():
            why = found.get("explained", {}).get(key)
            why = (
                why
                or f"**not explained yet** (`explained.{key}` in `throughput/{found['name']}.json`)"
            )
            lines.append(f"- `{found['name']}`, {key.replace('_', ' ')} {off:+.0%}: {why}")
    measured = any(found["status"] == "measured" and found["device"] != "cpu" for found in records)
    return lines or ["None." if measured else "Nothing was measured on a GPU yet."]


def rehearsal(records: list[dict[str, Any]]) -> list[str]:
    """The CPU rows: that all train the same thing. No speeds: they would be the neighbours'."""
    lines = [
        "A toy model: it proves that the contenders train the same thing on the same rows. Processes that",
        "run one after the other on a shared CPU compare no speeds, so none are given; `python -m",
        "tests.bench train` takes turns.",
        "",
        "| contender | layers | loss at step 1 | at the last step |",
        "|---|---|---|---|",
    ]
    for found in sorted(records, key=lambda found: found["layers"]):
        row = [title(found).removesuffix(", NF4 base"), str(found["layers"]), state(found), "-"]
        if found["status"] == "measured":
            row[2:] = [f"{found['losses'][0]:.6f}", f"{found['losses'][-1]:.6f}"]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def provenance(records: list[dict[str, Any]]) -> list[str]:
    """What each record was made with, and what the trainer really used."""
    lines = []
    for found in records:
        if found["status"] != "measured":
            continue
        ran, versions, ceilings = found["ran"], found["versions"], found["ceilings"]
        told = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "trl", "peft",
                                                                 "bitsandbytes", "liger-kernel")
                         if name in versions)  # fmt: skip
        rates = ", ".join(
            f"{name.removesuffix('_flops')} {rate / 1e12:.1f} TFLOP/s" if name.endswith("_flops")
            else f"copy {rate / 1e12:.2f} TB/s" for name, rate in ceilings.items()
        )  # fmt: skip
        lines.append(
            f"- `{found['name']}`: {found['device']}, {found['date']}, commit {found['commit'][:10]}"
            f"{', dirty' if found['dirty'] else ''}, `{found['command']}`; {told}; {found['steps']} steps of "
            f"{found['tokens_per_step']:,.0f} tokens; attention {ran['attention']}, {ran['base']}, adapters "
            f"{ran['adapters']}, {ran['optimizer']}, {ran['layers_checkpointed']} layers checkpointed, "
            f"{ran['attention_kept']} keep attention, liger {'yes' if ran['liger'] else 'no'}"
            + (f"; ceilings: {rates}" if found["device"] != "cpu" else "")
        )
    return lines or ["No record yet."]
