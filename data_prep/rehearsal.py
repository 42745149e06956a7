"""The rehearsal's data: chains of arithmetic modulo 100 with long worked traces.

A problem gives a two-digit start and a list of labelled operations. A trace works through them
one step at a time, checks some results, slips now and then, notices, and does the step again.
The traces are written in the Sky-T1 reply format, so that the rehearsal takes the very road of
the real data:

    python -m data_prep.rehearsal --out data/rehearsal --traces 2000 --seed 0

Everything here is plain Python and a function of the seed: the same seed gives the same bytes.
"""

import argparse
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from longcot.rows import hash_file, read_jsonl, write_json, write_jsonl

LABELS = "abcdefghijkl"
VERBS = {"+": "add", "-": "subtract", "*": "multiply by"}
# Factors prime to 100 keep multiplication invertible, hence the answers close to uniform.
FACTORS = (3, 7, 9)
SHORTEST, LONGEST = 4, 8
TEST_SIZE, VALIDATION_SIZE = 400, 200
CHECK_RATE = 0.5  # of the operations are checked and found right
SLIP_RATE = 0.15  # of the operations go wrong first, are checked, and are done again
SOURCE = "rehearsal"


@dataclass(frozen=True)
class Operation:
    """One operation: a sign among + - * and a one-digit operand."""

    sign: str
    operand: int


@dataclass(frozen=True)
class Problem:
    """A chain: a start in 10..99 and the operations in order. Equal chains compare equal."""

    start: int
    operations: tuple[Operation, ...]


def apply_operation(value: int, operation: Operation) -> int:
    """The last two digits of `value` after one operation."""
    if operation.sign == "+":
        return (value + operation.operand) % 100
    if operation.sign == "-":
        return (value - operation.operand) % 100
    return (value * operation.operand) % 100


def solve(problem: Problem) -> int:
    """The last two digits at the end of the chain."""
    value = problem.start
    for operation in problem.operations:
        value = apply_operation(value, operation)
    return value


def draw_slip(rng: random.Random, right: int) -> int:
    """A wrong two-digit result near `right`: mostly one digit off, as slips are."""
    kind = rng.random()
    if kind < 0.4:
        return (right + rng.choice((10, -10))) % 100
    if kind < 0.8:
        return (right + rng.choice((1, -1, 2, -2))) % 100
    return (right + rng.randint(1, 99)) % 100


def draw_operation(rng: random.Random) -> Operation:
    """An operation with a uniform sign and a uniform operand among those its sign allows."""
    sign = rng.choice("+-*")
    return Operation(sign, rng.choice(FACTORS) if sign == "*" else rng.randint(2, 9))


def draw_problem(
    rng: random.Random, shortest: int, longest: int, forbidden: Iterable[Problem] = frozenset()
) -> Problem:
    """A chain of `shortest` to `longest` operations that is not among `forbidden` (a set)."""
    while True:
        length = rng.randint(shortest, longest)
        operations = tuple(draw_operation(rng) for _ in range(length))
        problem = Problem(rng.randint(10, 99), operations)
        if problem not in forbidden:
            return problem


def two_digits(value: int) -> str:
    """A value as every text here writes it: always two digits, `07`."""
    return f"{value:02d}"


def render_operation(operation: Operation) -> str:
    """An operation in words: `multiply by 7`."""
    return f"{VERBS[operation.sign]} {operation.operand}"


def render_problem(problem: Problem) -> str:
    """The problem as the user states it, one labelled operation a line.

    A label at the start of a line is the same token in the problem and in the trace; inside a
    line it would not be, and a small model then fails to find the next operation.
    """
    lines = [f"Start with {two_digits(problem.start)}."]
    for label, operation in zip(LABELS, problem.operations, strict=False):
        lines.append(f"({label}) {render_operation(operation)}")
    lines.append("Keep the last two digits. Result?")
    return "\n".join(lines)


def render_equation(value: int, operation: Operation, result: int) -> str:
    """`58-6=52`, with whatever result the writer believes in."""
    return f"{two_digits(value)}{operation.sign}{operation.operand}={two_digits(result)}"


def render_inverse(value: int, operation: Operation, result: int) -> str:
    """The equation that checks a result: the step undone, or the factors swapped."""
    operand = operation.operand
    if operation.sign == "*":
        product = apply_operation(value, operation)
        return f"{operand}*{two_digits(value)}={two_digits(product)}"
    undo = Operation("-" if operation.sign == "+" else "+", operand)
    return render_equation(result, undo, apply_operation(result, undo))


def state_step(label: str, value: int, operation: Operation, result: int) -> str:
    """The step that carries one operation out, rightly or wrongly."""
    equation = render_equation(value, operation, result)
    return f"({label}) Now {render_operation(operation)}: {equation}."


def confirm_step(value: int, operation: Operation, result: int) -> str:
    """A check that comes out right."""
    return f"Wait, check: {render_inverse(value, operation, result)}. Good."


def reject_step(value: int, operation: Operation, slip: int) -> str:
    """A check that finds a slip: the product is not the slip, or undoing it misses the value."""
    missed = slip if operation.sign == "*" else value
    check = render_inverse(value, operation, slip)
    return f"Wait, check: {check}. That is not {two_digits(missed)}."


def redo_step(value: int, operation: Operation, result: int) -> str:
    """The operation done again after a slip."""
    return f"Alternatively, redo it: {render_equation(value, operation, result)}."


def work_operation(
    rng: random.Random, label: str, value: int, operation: Operation
) -> tuple[list[str], int]:
    """The steps of one operation and its right result: plain, checked, or slipped and redone."""
    result = apply_operation(value, operation)
    mood = rng.random()
    if mood < SLIP_RATE:
        slip = draw_slip(rng, result)
        steps = [
            state_step(label, value, operation, slip),
            reject_step(value, operation, slip),
            redo_step(value, operation, result),
        ]
    else:
        steps = [state_step(label, value, operation, result)]
        if mood < SLIP_RATE + CHECK_RATE:
            steps.append(confirm_step(value, operation, result))
    return steps, result


def write_steps(rng: random.Random, problem: Problem) -> list[str]:
    """The thought as a list of steps; the last value stated is the answer."""
    value = problem.start
    steps = [f"Okay, start with {two_digits(value)}."]
    for label, operation in zip(LABELS, problem.operations, strict=False):
        worked, value = work_operation(rng, label, value, operation)
        steps.extend(worked)
    return steps


def write_reply(steps: list[str], answer: int) -> str:
    """The assistant's whole reply in the Sky-T1 format: thought, then the boxed answer."""
    parts = ["<|begin_of_thought|>", *steps, "<|end_of_thought|>", "<|begin_of_solution|>"]
    parts += [f"The result is \\boxed{{{two_digits(answer)}}}.", "<|end_of_solution|>"]
    return "\n\n".join(parts)


def draw_distinct(seed: str, count: int, forbidden: frozenset[Problem]) -> list[Problem]:
    """`count` different problems outside `forbidden`, a function of `seed` alone."""
    rng = random.Random(seed)
    chosen: dict[Problem, None] = {}
    while len(chosen) < count:
        chosen[draw_problem(rng, SHORTEST, LONGEST, forbidden)] = None
    return list(chosen)


def draw_test() -> list[Problem]:
    """The test problems, the same for every seed."""
    return draw_distinct("rehearsal/test", TEST_SIZE, frozenset())


def draw_validation() -> list[Problem]:
    """The validation problems, the same for every seed and disjoint from the test."""
    return draw_distinct("rehearsal/validation", VALIDATION_SIZE, frozenset(draw_test()))


def draw_held_out() -> frozenset[Problem]:
    """Every problem that neither training nor the base model's corpus may contain."""
    return frozenset(draw_test()) | frozenset(draw_validation())


def draw_training(count: int, seed: int) -> list[tuple[Problem, list[str]]]:
    """`count` different training problems with their steps; the sample depends on `seed`."""
    problems = draw_distinct(f"rehearsal/train/{seed}", count, draw_held_out())
    rng = random.Random(f"rehearsal/steps/{seed}")
    return [(problem, write_steps(rng, problem)) for problem in problems]


def make_trace_row(identifier: str, problem: Problem, steps: list[str]) -> dict:
    """A training row in the Sky-T1 form."""
    answer = solve(problem)
    return {
        "id": identifier,
        "source": SOURCE,
        "conversations": [
            {"from": "user", "value": render_problem(problem)},
            {"from": "assistant", "value": write_reply(steps, answer)},
        ],
        "answer": two_digits(answer),
    }


def make_problem_row(identifier: str, problem: Problem) -> dict:
    """A row of the validation or test split; `k` is the number of operations."""
    return {
        "id": identifier,
        "problem": render_problem(problem),
        "answer": two_digits(solve(problem)),
        "k": len(problem.operations),
    }


def write_rehearsal(out: Path, traces: int, seed: int, questions: int = 0) -> dict:
    """Write train, validation and test rows and a manifest under `out`; return the manifest.

    Raises ValueError if `traces` is not positive, or if a held-out problem is in training.
    """
    if traces < 1:
        raise ValueError(f"--traces is {traces}; give a number of at least 1")
    training = draw_training(traces, seed)
    held_out = draw_held_out()
    overlap = sum(problem in held_out for problem, _ in training)
    if overlap:
        raise ValueError(f"{overlap} held-out problems are in the training sample of seed {seed}")
    files = {
        "train.jsonl": [
            make_trace_row(f"train-{seed}-{i:05d}", *row) for i, row in enumerate(training)
        ],
        "validation.jsonl": [
            make_problem_row(f"validation-{i:03d}", p) for i, p in enumerate(draw_validation())
        ],
        "test.jsonl": [make_problem_row(f"test-{i:03d}", p) for i, p in enumerate(draw_test())],
    }
    if questions:  # for a teacher; a seed of their own, so that no training set of ours holds many
        drawn = draw_distinct("rehearsal/questions", questions, held_out)
        files["questions.jsonl"] = [
            make_problem_row(f"question-{i:05d}", problem) for i, problem in enumerate(drawn)
        ]
    counts = {name: write_jsonl(out / name, rows) for name, rows in files.items()}
    hashes = {name: hash_file(out / name) for name in files}
    manifest = {"seed": seed, "counts": counts, "overlap": overlap, "sha256": hashes}
    write_json(out / "manifest.json", manifest)
    return manifest


def main() -> None:
    """Read the command line, write the files, and show counts and one example."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--traces", type=int, default=2000, help="training rows")
    parser.add_argument("--seed", type=int, default=0, help="chooses the training sample only")
    parser.add_argument("--questions", type=int, default=0, help="questions.jsonl, for a teacher")
    arguments = parser.parse_args()
    manifest = write_rehearsal(arguments.out, arguments.traces, arguments.seed, arguments.questions)
    for name, count in manifest["counts"].items():
        print(f"{arguments.out / name}: {count} rows, sha256 {manifest['sha256'][name][:12]}")
    print(f"held-out problems in training: {manifest['overlap']}")
    _, example = next(read_jsonl(arguments.out / "train.jsonl"))
    for turn in example["conversations"]:
        print(f"\n--- {turn['from']} ---\n{turn['value']}")


if __name__ == "__main__":
    main()
