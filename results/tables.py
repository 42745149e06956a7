"""Generate results/*.md and their figures from results/runs/*.json and results/published.yaml.

python -m results.tables            write every table and figure
python -m results.tables --check    write nothing; exit 1 if a committed one is stale

No record, no row with a number: what was not run says "not run".
"""

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

from longcot import plots, record
from results import distill, rehearsal_structure, structure, throughput_page
from results.cells import (
    HEADER,
    NOT_RUN,
    beside,
    figures_of,
    heads,
    provenance,
    scored,
    table_row,
    tell,
    with_interval,
)

RESULTS = Path(__file__).parent
REHEARSAL = [  # (run, label)
    ("rehearsal_base", "Base model, no training"),
    ("rehearsal_n500", "LoRA, 500 traces"),
    ("rehearsal_n1000", "LoRA, 1,000 traces"),
    ("rehearsal", "LoRA, 2,000 traces"),
    ("rehearsal_s1", "LoRA, 2,000 traces, seed 1"),
    ("rehearsal_s2", "LoRA, 2,000 traces, seed 2"),
]
TASK = "test"  # the rehearsal's held-out problems, data/rehearsal/test.jsonl


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m results.tables", description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = generate(RESULTS / "runs", Path(folder))
        texts = {path.name: path.read_bytes() for path in made}
    if arguments.check:
        stale = [
            name
            for name, text in texts.items()
            if not (RESULTS / name).exists() or (RESULTS / name).read_bytes() != text
        ]
        stale += [path.name for path in unshown(RESULTS)]
        if stale:
            sys.exit(f"error: stale: {', '.join(stale)}; run python -m results.tables and commit")
        print("tables up to date")
        return
    for name, text in texts.items():
        (RESULTS / name).write_bytes(text)
    for path in unshown(RESULTS):  # its record is gone
        path.unlink()
    print(f"written: {', '.join(texts)}")


def unshown(folder: Path) -> list[Path]:
    """Figures that no page of a folder shows."""
    pages = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.md"))
    return [path for path in sorted(folder.glob("*.svg")) if f"({path.name})" not in pages]


def generate(runs: Path, folder: Path) -> list[Path]:
    """Write every table and figure into `folder`, which is empty; returns their paths."""
    published = yaml.safe_load((RESULTS / "published.yaml").read_text(encoding="utf-8"))
    pages = {"rehearsal": rehearsal_page(runs)}
    pages |= {
        word: published_page(runs, page) for word, page in published.items() if "tables" in page
    }
    pages["distill"] += distill.write_figures(runs, published["distill"], folder)
    pages["structure"] = structure.write_page(runs, published["structure"], folder)
    pages["rehearsal_structure"] = rehearsal_structure.write_page(runs, published, folder)
    timed = throughput_page.read_records(runs.parent / "throughput")
    pages["throughput"] = throughput_page.page(timed)
    for word, text in pages.items():
        (folder / f"{word}.md").write_text(text, encoding="utf-8")
    bars = [
        {"label": label, "base": run == "rehearsal_base", **found["eval"][TASK]}
        for run, label in REHEARSAL
        if (found := scored(run, runs))
    ]
    plots.plot_accuracy(
        bars,
        folder / "rehearsal.svg",
        "Two-digit chains: base model and LoRA on long chains of thought",
    )
    return sorted(folder.iterdir())


def rehearsal_page(runs: Path) -> str:
    base = scored("rehearsal_base", runs)
    lines = [
        HEADER,
        "# Rehearsal: the distill story at CPU size",
        "",
        "A 0.85 M-parameter Qwen2 that can do two-digit arithmetic in plain text, but answers a chat",
        "prompt at once and wrongly. LoRA on long chains of thought makes it think first. Problems are",
        "held out (none in any training set), decoding is greedy. `make rehearsal` makes the rows",
        "`rehearsal_base` and `rehearsal`, `make rehearsal-seeds` the others. Every run takes 1.6 epochs,",
        "so fewer traces also mean fewer steps; seeds change their order and the adapters' start.",
        "",
        "![accuracy of every run](rehearsal.svg)",
        "",
        "| run | what | solved (95% interval) | n | against the base (99% interval) | mean tokens "
        "| out of tokens | last loss | steps | training | dirty |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run, label in REHEARSAL:
        found = scored(run, runs)
        lines.append(
            rehearsal_row(run, label, found, base)
            if found
            else f"| `{run}` | {label} | {NOT_RUN} |" + " |" * 8
        )
    lines += ["", *provenance(runs, [run for run, _ in REHEARSAL])]
    return "\n".join(lines) + "\n"


def rehearsal_row(run: str, label: str, found: dict, base: dict | None) -> str:
    numbers, train = found["eval"][TASK], found.get("train")
    against = "-"
    if train and base and base["eval"][TASK]["task_hash"] == numbers["task_hash"]:
        paired = record.difference(base["eval"][TASK], numbers, 0.99)
        low, high = paired["interval"]
        against = f"{100 * paired['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    cells = [
        f"`{run}`",
        label,
        with_interval(numbers),
        str(numbers["n"]),
        against,
        f"{numbers['mean_tokens']:.0f}",
        f"{100 * numbers['statuses'].get('ran_out_of_tokens', 0):.1f}%",
        f"{train['loss']:.3f}" if train else "-",
        f"{train['steps']:,}" if train else "-",
        f"{train['seconds']:.0f} s" if train else "-",
        "yes" if found["dirty"] or found.get("evaluated", {}).get("dirty") else "no",
    ]
    return table_row(*cells)


def published_page(runs: Path, page: dict) -> str:
    """One page of `published.yaml`: its tables, what others published beside what we ran."""
    lines = [HEADER, f"# {page['title']}"]
    for table in page["tables"]:
        tasks = table["tasks"]
        lines += [
            "",
            f"Published: {table['source']}. Ours: accuracy with its 95% interval, from our records.",
            "",
            *heads("row", *beside(tasks.values())),
        ]
        lines += [published_row(runs, row, tasks) for row in table["rows"]]
    return "\n".join(lines) + "\n"


def published_row(runs: Path, row: dict, tasks: dict[str, str]) -> str:
    """A row without a run is one that only others have."""
    run = row.get("run")
    found = figures_of(run, run or "", runs)
    told = [row["label"] + (f" (`recipes/{run}.yaml`)" if run else "")]
    for task in tasks:
        told += [tell(found.get(task), row.get("metric")), str(row.get(task, "-"))]
    return table_row(*told)


if __name__ == "__main__":
    main()
