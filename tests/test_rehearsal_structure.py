"""The structure rehearsal's data: wrong traces are wrong in one place, solutions are the bare chain."""

import re

import pytest

from data_prep import rehearsal, rehearsal_structure
from longcot import chat, rows, segment

EQUATION = re.compile(r"(\d\d)([+*-])(\d)=(\d\d)")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structure")
    rehearsal_structure.write_rehearsal_structure(folder, 200, 3)
    return [
        [row for _, row in rows.read_jsonl(folder / f"{name}.jsonl")] for name in ("train", "wrong")
    ]


def is_right(found: tuple[str, str, str, str]) -> bool:
    start, sign, operand, result = found
    return rehearsal.apply_operation(int(start), rehearsal.Operation(sign, int(operand))) == int(
        result
    )


def test_right_traces_are_the_rehearsals_own(made):
    right, _ = made
    for row, (problem, steps) in zip(right, rehearsal.draw_training(200, 3), strict=True):
        own = rehearsal.make_trace_row(row["id"], problem, steps)
        assert {key: row[key] for key in own} == own


def test_wrong_traces_match_by_problem_and_end_wrong_in_their_own_words(made):
    for right, wrong in zip(*made, strict=True):
        assert right["conversations"][0] == wrong["conversations"][0]
        reply = wrong["conversations"][1]["value"]
        parts = chat.split(reply)
        box = re.search(r"\\boxed\{(\d\d)\}", parts.solution)
        stated = [
            s for s in parts.thought.split("\n\n") if re.match(r"\(|Alternatively", s.strip())
        ]
        assert box and box[1] != right["answer"] == wrong["answer"]
        assert (
            EQUATION.search(stated[-1])[4] == box[1]
        )  # the answer is the trace's, not a random box


def test_exactly_one_slip_goes_unnoticed(made):
    for row in made[1]:
        steps = chat.split(row["conversations"][1]["value"]).thought.strip().split("\n\n")
        unnoticed = 0
        for place, step in enumerate(steps):
            found = EQUATION.search(step)
            if step.startswith("(") and not is_right(found.groups()):
                following = steps[place + 1] if place + 1 < len(steps) else ""
                unnoticed += "That is not" not in following
        assert unnoticed == 1


def test_written_solutions_are_right_and_short(made):
    for row in made[0]:
        chain = EQUATION.findall(row["solution"])
        assert all(map(is_right, chain))
        assert [a[3] for a in chain[:-1]] == [b[0] for b in chain[1:]]
        assert row["solution"].endswith(f"\\boxed{{{row['answer']}}}.")
        assert len(row["solution"]) < len(row["conversations"][1]["value"]) / 2


def test_the_same_seed_gives_the_same_bytes_and_another_others(made, tmp_path):
    for seed in (3, 4):
        rehearsal_structure.write_rehearsal_structure(tmp_path / str(seed), 200, seed)
    same, other = ([row for _, row in rows.read_jsonl(tmp_path / s / "wrong.jsonl")] for s in "34")
    assert same == made[1] != other


def test_the_segmenter_finds_the_steps_as_written():
    for problem, steps in rehearsal.draw_training(300, 5):
        reply = rehearsal.write_reply(steps, rehearsal.solve(problem))
        assert list(segment.split_steps(chat.split(reply).thought).texts) == steps
