"""What in a trace teaches: a training file under every condition of Tables 2 and 4, in one pass.

python -m data_prep.structure FILE --out FOLDER --wrong WRONG --solutions PROBLEMS
python -m data_prep.structure FILE --preview        one row under all conditions, side by side

FILE holds correct long traces in any form that training reads. FOLDER gets <condition>.jsonl, manifest.json
and report.md. `wrong` needs --wrong, rows whose answer is wrong (`data_prep.distill subset --verdict wrong`
makes them); `short` needs a column `solution`, or --solutions. What cannot be made is told.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from data_prep import cuts, matching, reflections, sidebyside, tallies
from data_prep.conditions import Item, Task, load_tokenizer, make_rows, read_item
from data_prep.cuts import Cuts
from data_prep.distill import positive, spread
from data_prep.matching import Inputs
from data_prep.mixture import Asked
from data_prep.reflections import Edits
from data_prep.tallies import Tally
from longcot import perturb, rows, segment
from longcot.errors import RecipeError, RowError, plainly
from longcot.perturb import Variant
from longcot.workers import map_rows

CHUNK = 16  # rows, each under every condition, that travel together
SAME = perturb.read_variant("correct")
NEEDS = {
    "wrong": "needs --wrong FILE, training rows whose answer is wrong",
    "short": "needs a column solution in the rows, or --solutions FILE",
    "judge": "needs --judge URL and --judge-model MODEL",
}


def choose(arguments: argparse.Namespace) -> tuple[list[Variant], set[str]]:
    """The conditions wanted, and the names of those that were asked for one by one."""
    named = [
        perturb.read_variant(name.strip())
        for text in (arguments.only, arguments.also)
        for name in (text or "").split(",")
        if name.strip()
    ]
    known = [] if arguments.only else list(map(perturb.read_variant, perturb.CONDITIONS))
    wanted = {variant.name: variant for variant in [*known, *named]}
    if not wanted:
        raise RecipeError(f"--only {arguments.only!r} names no condition")
    return list(wanted.values()), {variant.name for variant in named}


def leave_out(
    wanted: list[Variant], named: set[str], given: dict[str, bool]
) -> tuple[list[Variant], dict[str, str]]:
    """What can be made with what is given, and why the rest cannot; raises RecipeError for a condition
    that was asked for by name."""
    made, not_made = [], {}
    for variant in wanted:
        need = "judge" if variant.asks_judge else variant.name
        if given.get(need, True):
            made.append(variant)
        elif variant.name in named:
            raise RecipeError(f"condition {variant.name!r} {NEEDS[need]}")
        else:
            not_made[variant.name] = NEEDS[need]
    return made, not_made


def read_inputs(arguments: argparse.Namespace) -> Inputs:
    """Look at every file once; raises RecipeError for a condition that was named and cannot be made."""
    wanted, named = choose(arguments)
    if arguments.preview is None:
        check_out(arguments.out, wanted)
    if arguments.tokenizer:
        load_tokenizer(arguments.tokenizer)  # its absence is told before the work
    source = rows.hash_source(arguments.file, arguments.revision)
    if arguments.wrong and rows.hash_source(arguments.wrong, "main") == source:
        raise RowError(
            f"--wrong {arguments.wrong} is FILE itself; its rows would be right and wrong"
        )
    given = {"wrong": bool(arguments.wrong), "judge": bool(arguments.judge)}
    leave_out(wanted, named, given)  # told before the files are read
    takes_donors = any(variant.takes_donors for variant in wanted)
    survey = matching.take_survey(arguments.file, arguments.revision, takes_donors)
    is_wanted = {variant.name for variant in wanted}
    path, solutions = arguments.solutions if "short" in is_wanted else None, {}
    if path:
        solutions = matching.read_solutions(path, survey)
    given["short"] = bool(survey.solutions or solutions)
    variants, not_made = leave_out(wanted, named, given)
    wrong = None
    if arguments.wrong and "wrong" in is_wanted:
        wrong = matching.match_wrong(arguments.wrong, survey)
    return Inputs(survey, source, variants, not_made, wrong, path, solutions)


# ---- writing


def write(inputs: Inputs, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write every condition's file, the manifest and the report; gives the manifest."""
    out, survey = arguments.out, inputs.survey
    edits, cut = ask_judge(inputs, arguments)
    task = inputs.task(arguments.tokenizer)
    found = {variant.name: Tally() for variant in inputs.variants}
    with ExitStack() as stack:
        files = {name: stack.enter_context(growing(out / f"{name}.jsonl")) for name in found}

        def take(task: Task, names: list[str], items: Iterator[Item], total: int) -> None:
            made = map_rows(partial(make_rows, task=task), items, chunk=CHUNK, **spread(arguments))
            for row in tqdm(made, f"{len(names)} conditions", total, unit=" rows"):
                for name, cell in zip(names, row.cells) if row.cells else ():
                    files[name].write(cell.line)
                    found[name].add(row, cell)

        names = [variant.name for variant in task.variants]
        items = matching.read_rows(survey, arguments.revision, inputs.solutions, edits, cut)
        take(task, names, items, survey.rows)
        if inputs.wrong:
            name = matching.name_file(inputs.wrong.path)
            own = replace(task, name=name, variants=(SAME,), donors=perturb.Donors((), ()))
            take(own, ["wrong"], matching.read_wrong(inputs.wrong), len(inputs.wrong.numbers))
    judge = {"model": arguments.judge_model}
    if edits:
        judge |= {"prompt": reflections.fingerprint(), **reflections.SAMPLING}
    if cut:
        by_rules = dict(sorted(cut.fallbacks.items()))
        told = {"prompt": segment.judge_fingerprint(), **cuts.SAMPLING}
        judge["steps"] = {**told, "by rules": by_rules}
    used = {"tokenizer": arguments.tokenizer, "judge": judge if edits or cut else None}
    manifest = tallies.describe(inputs, found, used)
    rows.write_json(out / "manifest.json", manifest)
    examples = {name: tally.example for name, tally in found.items() if tally.example}
    text = tallies.tell(manifest, examples)
    rows.write_atomic(out / "report.md", lambda to: to.write_text(text, encoding="utf-8"))
    return manifest


@contextmanager
def growing(path: Path) -> Iterator[BinaryIO]:
    """A file to be written beside others, under its name only once the whole block is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb", buffering=1 << 18) as stream:
            yield stream
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_out(out: Path, variants: list[Variant]) -> None:
    """An earlier run's files are never overwritten."""
    if out.exists() and not out.is_dir():
        raise RowError(f"{out} is a file; --out names a folder here")
    for name in ("manifest.json", *(f"{variant.name}.jsonl" for variant in variants)):
        if (out / name).exists():
            raise RowError(f"{out / name} exists; remove it, or write with --out to another folder")


def ask_judge(inputs: Inputs, arguments: argparse.Namespace) -> tuple[Edits | None, Cuts | None]:
    """The judge's edits where a condition wants them, and its cuts with --judge-steps."""
    edits, cut, name = None, None, inputs.survey.name
    folder, again = arguments.out / "judge", arguments.retry_failed

    def items() -> Iterator[Item]:
        return matching.read_items(arguments.file, arguments.revision)

    def judge(settings: dict[str, Any]) -> Asked:
        key, urls = arguments.judge_key_env, tuple(arguments.judge)
        return Asked(model=arguments.judge_model, urls=urls, api_key_env=key, **settings)

    if asking := [variant for variant in inputs.variants if variant.asks_judge]:
        asked = judge(reflections.SAMPLING)
        edits = reflections.ask_judge(items(), name, asking, asked, folder, inputs.source, again)
    if arguments.judge_steps:
        asked = judge(cuts.SAMPLING)
        cut = cuts.ask_cuts(items(), name, asked, folder, inputs.source, again)
    return edits, cut


# ---- looking


def preview(inputs: Inputs, arguments: argparse.Namespace) -> None:
    """Print one row under every condition beside what it was; without an id, the first of the sample."""
    survey, wanted = inputs.survey, arguments.preview
    task = inputs.task(arguments.tokenizer)
    for item in matching.read_rows(survey, arguments.revision, inputs.solutions, None):
        read = read_item(item, survey.name)
        if read.key == wanted or (wanted == "" and item.is_sampled):
            break
    else:
        raise RowError(f"{survey.path}: no row has the id {wanted!r}")
    (made,) = make_rows([item._replace(is_sampled=True)], task)
    if not made.cells:
        raise RowError(f"{item.where}: {read.fault}; this row is left out of every condition")
    names = [variant.name for variant in task.variants]
    print(f"{read.key}, {made.steps} steps; {sidebyside.MARKS}")
    sidebyside.print_row(made, names)
    for other in matching.read_wrong(inputs.wrong) if inputs.wrong else ():
        (wrong,) = make_rows([other._replace(is_sampled=True)], replace(task, variants=(SAME,)))
        if read_item(other, survey.name).question == read.question:
            cell = wrong.cells[0]._replace(reply=wrong.reply)
            sidebyside.print_row(made._replace(cells=(cell,)), ["wrong"])
            break


# ---- the command


def main() -> None:
    """Read the command line; write all files, or show one row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("file", help="correct long traces: a file, or a hub data set")
    add("--out", type=Path, metavar="FOLDER", help="where the conditions are written")
    add("--preview", nargs="?", const="", metavar="ID", help="show one row, write nothing")
    add("--wrong", metavar="FILE", help="training rows whose answer is wrong")
    add("--solutions", metavar="FILE", help="rows with problem (or question) and solution")
    add("--only", metavar="A,B", help="these conditions alone")
    add("--also", metavar="X,Y", help="beside the nineteen: digits50_thought,delete33_start,...")
    add("--tokenizer", help="count the tokens of a sample of rows")
    add("--revision", default="main", help="commit or branch of a hub data set")
    add("--judge", nargs="+", metavar="URL", help="the model that rewrites keywords..._judge")
    add("--judge-model", metavar="MODEL")
    add("--judge-steps", action="store_true", help="it cuts the steps as well, instead of rules")
    add("--judge-key-env", metavar="NAME", help="environment variable that holds its key")
    add("--retry-failed", action="store_true", help="ask the judge's failed calls again")
    add("--workers", type=positive, default=1, help="processes (default 1)")
    add("--ray", metavar="ADDRESS", help="a Ray cluster instead of processes")
    arguments = parser.parse_args()
    if arguments.out is None and arguments.preview is None:
        parser.error("--out FOLDER or --preview is wanted")
    if bool(arguments.judge) != bool(arguments.judge_model):
        parser.error("--judge and --judge-model go together")
    if arguments.judge_steps and not arguments.judge:
        parser.error("--judge-steps needs --judge URL and --judge-model MODEL")
    inputs = read_inputs(arguments)
    for name, why in inputs.not_made.items():
        print(f"not made: {name} {why}")
    if arguments.preview is not None:
        preview(inputs, arguments)
        return
    manifest = write(inputs, arguments)
    for name, entry in manifest["conditions"].items():
        unchanged = ", ".join(f"{n:,} x {why}" for why, n in entry["unchanged"].items())
        left_out = "".join(
            f"; left out: {n:,} x {why}" for why, n in entry.get("left_out", {}).items()
        )
        told = left_out + (f"; unchanged: {unchanged}" if unchanged else "")
        print(f"{name}: {entry['rows']:,} rows{told}")
        if entry["rows"] == sum(entry["unchanged"].values()):
            print(f"warning: {name} changes no row; train on nothing of that name")
    if wrong := manifest.get("wrong"):
        print("wrong: {matched:,} matched, {drawn:,} drawn, {missing:,} missing".format(**wrong))
    print(f"{arguments.out}: {len(manifest['conditions'])} conditions, manifest.json, report.md")


if __name__ == "__main__":
    with plainly():
        main()
