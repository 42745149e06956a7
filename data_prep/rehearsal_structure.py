"""What the structure story is rehearsed on: right traces, wrong ones, and short written solutions.

The problems and right traces are the rehearsal's own (`data_prep.rehearsal`). To each comes a trace
whose answer is wrong, for one slip in it goes unnoticed, and the bare chain of equations as its
written solution:

    python -m data_prep.rehearsal_structure --out data/rehearsal_structure/s0 --traces 1000 --seed 0

The conditions are then made as those of real traces are, by `python -m data_prep.structure`.
"""

import argparse
import random
from pathlib import Path

from data_prep.rehearsal import (
    LABELS,
    Problem,
    apply_operation,
    draw_slip,
    draw_training,
    make_trace_row,
    render_equation,
    solve,
    state_step,
    two_digits,
    work_operation,
    write_reply,
)
from longcot.rows import write_jsonl


def write_wrong_steps(rng: random.Random, problem: Problem) -> tuple[list[str], int]:
    """A thought with one slip that is never noticed, and the wrong answer it arrives at.

    Everything after the slip follows from it, as in sampled wrong traces; every operation can be
    undone modulo 100, so the answer stays wrong.
    """
    slipped = rng.randrange(len(problem.operations))
    value = problem.start
    steps = [f"Okay, start with {two_digits(value)}."]
    for place, operation in enumerate(problem.operations):
        if place == slipped:
            slip = draw_slip(rng, apply_operation(value, operation))
            steps.append(state_step(LABELS[place], value, operation, slip))
            value = slip
        else:
            worked, value = work_operation(rng, LABELS[place], value, operation)
            steps.extend(worked)
    return steps, value


def write_solution(problem: Problem) -> str:
    """The written solution, the short chain of thought: one equation an operation, then the box."""
    value, lines = problem.start, []
    for label, operation in zip(LABELS, problem.operations, strict=False):
        result = apply_operation(value, operation)
        lines.append(f"({label}) {render_equation(value, operation, result)}")
        value = result
    return "\n".join([*lines, f"The result is \\boxed{{{two_digits(value)}}}."])


def write_rehearsal_structure(out: Path, traces: int, seed: int) -> None:
    """Write train.jsonl (with a `solution` a row) and wrong.jsonl, matched by problem, under `out`."""
    rng = random.Random(f"rehearsal/wrong/{seed}")
    right, wrong = [], []
    for number, (problem, steps) in enumerate(draw_training(traces, seed)):
        row = make_trace_row(f"train-{seed}-{number:05d}", problem, steps)
        right.append({**row, "solution": write_solution(problem)})
        slipped, answer = write_wrong_steps(rng, problem)
        assert answer != solve(problem)
        conversations = [row["conversations"][0], {**row["conversations"][1]}]
        conversations[1]["value"] = write_reply(slipped, answer)
        wrong.append({**row, "id": f"wrong-{seed}-{number:05d}", "conversations": conversations})
    write_jsonl(out / "train.jsonl", right)
    write_jsonl(out / "wrong.jsonl", wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--traces", type=int, default=1000, help="training rows")
    parser.add_argument("--seed", type=int, default=0, help="chooses the training sample")
    arguments = parser.parse_args()
    if arguments.traces < 1:
        parser.error(f"--traces is {arguments.traces}; give a number of at least 1")
    write_rehearsal_structure(arguments.out, arguments.traces, arguments.seed)
    print(f"{arguments.out}: {arguments.traces} right traces, and as many wrong ones")


if __name__ == "__main__":
    main()
