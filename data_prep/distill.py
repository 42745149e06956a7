"""Long-CoT data in one story: questions, decontaminate, label, sample, rewrite, reject, mix.

python -m data_prep.distill make RECIPE [key=value ...]   every stage of data_prep/distill17k.yaml or the like
python -m data_prep.distill import NAME|FILE --out FILE   a published set, as training rows
python -m data_prep.distill report FILE --out FOLDER      what is in a training file, with a picture
python -m data_prep.distill clean FILE --out FILE         leave out benchmark questions and duplicates
python -m data_prep.distill subset FILE --out FILE        a seeded part: 7k, correct maths, wrong answers

`make` writes data/<recipe>/: one file per stage with one line per row, `drop` null or the reason it fell,
then train.jsonl, manifest.json, data_card.md and the report. Killed and started again, it goes on: no
question whose answer had arrived is asked again. Stages after Sky-T1, paper section 3.1, but for one:
benchmark questions and duplicates fall before the teacher is paid for them.
"""

import argparse
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tqdm import tqdm

from data_prep import curate, manifest, published, report, stages
from data_prep.mixture import Decontaminate, Mixture, broken_shares, load_mixture
from longcot import ledger, rows, serving
from longcot.errors import RecipeError, RowError, plainly

STAGES = ("questions", "decontaminate", "label", "sample", "rewrite", "reject")


def make(mixture: Mixture, folder: Path, spread: dict, again: bool) -> None:
    """All stages of a data recipe; each prints rows in, rows out and why the rest fell."""
    paths = {name: folder / f"{number}_{name}.jsonl" for number, name in enumerate(STAGES, 1)}
    tallies = []

    def finish(stage: str) -> ledger.Kept:
        tell(ledger.tally(paths[stage]))
        return ledger.Kept(paths[stage])

    def tell(tally: dict) -> None:
        tallies.append(tally)
        print(manifest.tally_line(tally))
        if not tally["rows_out"]:
            raise RowError(
                f"{folder}: stage {tally['stage']} keeps no row, for the reasons above; mend the recipe "
                "or the teacher, then remove the stage's file, or use --retry-failed for failed calls"
            )

    stages.collect_questions(mixture, paths["questions"])
    questions = finish("questions")

    stages.drop_known(mixture, questions, paths["decontaminate"], spread)
    known = finish("decontaminate")

    stages.label(mixture, questions, known, paths["label"], again)
    labelled = finish("label")

    stages.sample(mixture, questions, labelled, paths["sample"], again)
    samples = finish("sample")

    stages.rewrite(mixture, samples, paths["rewrite"], again)
    replies = finish("rewrite")

    stages.reject(mixture, questions, replies, paths["reject"], spread)
    right, wrong = finish("reject"), ledger.Kept(paths["reject"], "wrong")

    limits = {name: source.count for name, source in mixture.sources.items()}
    counts, tally = stages.mix(mixture, questions, replies, right, limits, folder / "train.jsonl")
    tell(tally)
    stages.mix(mixture, questions, replies, wrong, {}, folder / "wrong.jsonl")
    made = manifest.write_manifest(mixture, folder, tallies, counts)
    manifest.describe(mixture, folder, made, spread)


# ---- the commands


def run_make(arguments: argparse.Namespace) -> None:
    overrides = list(arguments.overrides)
    load_mixture(arguments.recipe, overrides)  # its faults are told before a server loads
    if arguments.out and arguments.out.exists() and not arguments.out.is_dir():
        raise RowError(f"{arguments.out} is a file; --out names a folder here")
    with ExitStack() as stack:
        for engine in ("vllm", "transformers"):
            if model := getattr(arguments, engine):
                url = stack.enter_context(getattr(serving, engine)(model))
                overrides += [f"teacher.model={model}", f"teacher.urls=[{url}]"]
        mixture = load_mixture(arguments.recipe, overrides)
        folder = arguments.out or Path("data") / mixture.name
        make(mixture, folder, spread(arguments), arguments.retry_failed)


def run_import(arguments: argparse.Namespace) -> None:
    dropped: Counter = Counter()

    def kept():
        for row, reason in published.import_rows(arguments.name, revision=arguments.revision):
            if row is None:
                dropped[reason] += 1
            else:
                yield row

    check_out(arguments.out)
    count = rows.write_jsonl(arguments.out, kept())
    tally = {
        "stage": f"import {arguments.name}", "rows_in": count + dropped.total(),
        "rows_out": count, "dropped": dropped,
    }  # fmt: skip
    print(manifest.tally_line(tally))
    if arguments.tokenizer:
        arguments.file, arguments.out = str(arguments.out), arguments.out.with_suffix("")
        run_report(arguments)


def run_report(arguments: argparse.Namespace) -> None:
    check_shares(arguments)
    found = report.measure(
        arguments.file,
        revision=arguments.revision or "main",
        tokenizer_path=arguments.tokenizer,
        max_length=arguments.max_length,
        benchmarks=arguments.benchmarks,
        ngram=arguments.ngram,
        overlap=arguments.overlap,
        near_duplicate=arguments.near_duplicate,
        progress=partial(tqdm, desc="report", unit=" rows"),
        **spread(arguments),
    )
    report.write(found, arguments.out)
    print(f"{arguments.out}: report.md, report.json, report.png")


def run_clean(arguments: argparse.Namespace) -> None:
    check_shares(arguments)
    check_out(arguments.out)
    section = Decontaminate(
        benchmarks=tuple(arguments.benchmarks), ngram=arguments.ngram,
        overlap=arguments.overlap, near_duplicate=arguments.near_duplicate,
    )  # fmt: skip
    print(
        manifest.tally_line(
            curate.clean_file(arguments.file, arguments.out, section, **spread(arguments))
        )
    )


def run_subset(arguments: argparse.Namespace) -> None:
    check_out(arguments.out)
    tally = curate.subset_file(
        arguments.file, arguments.out, arguments.count, arguments.seed,
        kind=arguments.kind, verdict=arguments.verdict, **spread(arguments),
    )  # fmt: skip
    print(manifest.tally_line(tally))


def check_out(path: Path) -> None:
    """An output file is never overwritten, and is named as what it is."""
    if path.exists():
        raise RowError(f"{path} exists; remove it, or write with --out to another place")
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise RowError(f"--out {path}: rows are written as .jsonl or .jsonl.gz")


def check_shares(arguments: argparse.Namespace) -> None:
    """The thresholds of the command line under the rules of a recipe's."""
    for key, message in broken_shares(arguments):
        flag = "--" + key.replace("_", "-")
        raise RecipeError(f"{flag} {getattr(arguments, key)}: {message}")


def positive(text: str) -> int:
    """A whole number above zero, for the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not above zero")
    return number


def spread(arguments: argparse.Namespace) -> dict:
    """Where the work on rows runs, as `map_rows` takes it."""
    return {"workers": arguments.workers, "ray": arguments.ray}


def add_overlap(added: argparse.ArgumentParser) -> None:
    added.add_argument("--benchmarks", nargs="*", default=[], help="names, NAME=FILE or files")
    added.add_argument("--ngram", type=int, default=8, help="words (default 8)")
    added.add_argument("--overlap", type=float, default=0.5, help="share (default 0.5)")
    added.add_argument("--near-duplicate", type=float, default=0.7, help="share (default 0.7)")


def add_report(added: argparse.ArgumentParser, tokenizer_required: bool) -> None:
    added.add_argument("--tokenizer", required=tokenizer_required, help="the student's")
    added.add_argument("--max-length", type=positive, default=16384, help="tokens (default 16384)")
    added.add_argument("--revision", help="commit or branch of a hub data set")
    add_overlap(added)


def main() -> None:
    """Read the command line and run one command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=run.__doc__ or help)
        added.set_defaults(run=run)
        added.add_argument("--workers", type=positive, default=1, help="processes (default 1)")
        added.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster instead of processes")
        return added

    made = command("make", run_make, "all stages of a data recipe")
    made.add_argument("recipe")
    made.add_argument("overrides", nargs="*", metavar="section.key=value")
    made.add_argument("--out", type=Path, help="folder (default data/<recipe>)")
    made.add_argument("--vllm", metavar="MODEL", help="start `vllm serve MODEL` as the teacher")
    made.add_argument("--transformers", metavar="MODEL", help="the same with `transformers serve`")
    made.add_argument("--retry-failed", action="store_true", help="ask calls that failed again")

    taken = command("import", run_import, "a published set, as training rows")
    taken.add_argument("name", help=f"a file, or one of {', '.join(published.PUBLISHED)}")
    taken.add_argument("--out", type=Path, required=True)
    add_report(taken, tokenizer_required=False)

    told = command("report", run_report, "what is in a training file")
    told.add_argument("file")
    told.add_argument("--out", type=Path, required=True, help="folder for report.md, .json, .png")
    add_report(told, tokenizer_required=True)

    cleaned = command("clean", run_clean, "leave out benchmark questions and duplicates")
    cleaned.add_argument("file")
    cleaned.add_argument("--out", type=Path, required=True)
    add_overlap(cleaned)

    part = command("subset", run_subset, "a seeded part of a training file")
    part.add_argument("file")
    part.add_argument("--out", type=Path, required=True)
    part.add_argument("--count", type=positive, help="rows (default: all that fit)")
    part.add_argument("--seed", type=int, default=0)
    part.add_argument("--kind", choices=("math", "code", "choice", "exact"))
    part.add_argument("--verdict", choices=("right", "wrong"), help="judge against the rows' gold")

    arguments, rest = parser.parse_known_args()
    if rest and (arguments.run is not run_make or any("=" not in word for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.overrides = [*getattr(arguments, "overrides", ()), *rest]  # key=value behind a flag
    arguments.run(arguments)


if __name__ == "__main__":
    with plainly():
        main()
