"""What is found before the first row is written: questions, solutions, wrong answers, samples."""

import random

import pytest
from conftest import sharegpt, thought
from structure_cases import last, question, read, reply, right_row, run, write, wrong_row

from data_prep import matching, prompts
from data_prep.conditions import Item, edit_distance, name_question
from longcot.errors import RecipeError, RowError
from longcot.rows import read_json


def survey(tmp_path, found, name="right.jsonl"):
    return matching.take_survey(write(tmp_path / name, found), "main", True)


def distance(one, other) -> int:
    """Levenshtein's table, written out."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def test_the_distance_between_lists_of_steps_is_levenshteins():
    rng = random.Random(0)
    for _ in range(4000):
        one, other = (rng.choices("abcd", k=rng.randint(0, 9)) for _ in range(2))
        assert edit_distance(one, other) == distance(one, other), (one, other)
    one, other = (rng.choices("abcdef", k=k) for k in (200, 130))  # longer than a machine word
    assert edit_distance(one, other) == distance(one, other)


def test_a_question_is_known_in_other_dress_and_no_other_is():
    bare = "Find $x$ with\n $x + \\boxed{3} = 5.$ Give  all of them."
    asked = "Return your final response within \\boxed{}. "
    reason = "Please reason step by step, and put your final answer within \\boxed{}."
    dressed = [bare, f" {bare}\n", asked + bare, f"{bare}\n{reason}", f"{bare} {reason}"]
    dressed.append(prompts.teacher_prompt({"kind": "math", "problem": bare, "starter_code": None}))
    assert len({name_question(text) for text in dressed}) == 1
    others = [bare.replace("3", "4"), bare.lower(), asked, reason, "", f"{asked}{bare} More."]
    assert len({name_question(text) for text in [bare, *others]}) == 7


def test_solutions_of_other_files_are_found_by_question(tmp_path, monkeypatch):
    found = [{k: v for k, v in right_row(n).items() if k != "solution"} for n in range(20)]
    found[3]["solution"] = "its own"
    path = write(tmp_path / "right.jsonl", found)
    problems = [{"problem": question(n).replace(" ", "  "), "solution": f"S{n}"} for n in range(12)]
    problems += [
        {"question": question(12), "solution": "S12"},
        {"problem": "else", "solution": "no"},
    ]
    problems += [sharegpt(question(13), "x", solution="S13"), {"problem": question(14)}]
    solutions = write(tmp_path / "problems.jsonl.gz", problems)
    run(monkeypatch, path, "--out", tmp_path / "out", "--only", "short", "--solutions", solutions)
    short = read(tmp_path / "out", "short")
    assert [last(short[f"r{n}"]) for n in range(14)] == [
        "its own" if n == 3 else f"S{n}" for n in range(14)
    ]
    assert len(short) == 14  # a long trace is no short one
    manifest = read_json(tmp_path / "out/manifest.json")
    assert manifest["conditions"]["short"]["left_out"] == {"no solution": 6}
    assert manifest["solutions"]["matched"] == 14
    other = write(tmp_path / "other.jsonl", [{"problem": "else", "solution": "no"}])
    with pytest.raises(RowError, match="none of its 1 solutions is to a question of"):
        matching.read_solutions(other, survey(tmp_path, found))


def test_no_more_wrong_answers_than_right_ones_and_each_question_as_often(tmp_path):
    twice = [right_row(1), {**right_row(1), "id": "again"}, right_row(2), right_row(3)]
    wrong = [{**wrong_row(1), "id": f"w{n}"} for n in range(3)] + [
        wrong_row(n) for n in range(5, 30)
    ]
    wrong.insert(0, {**wrong_row(2), "conversations": [{"from": "user", "value": question(2)}]})
    path = write(tmp_path / "wrong.jsonl", wrong)
    found = matching.match_wrong(path, survey(tmp_path, twice))
    assert {1, 2} <= found.numbers and 0 not in found.numbers and len(found.numbers) == 4
    assert (found.rows, found.left_out, found.matched) == (29, 1, 2)
    assert (found.drawn, found.missing) == (2, 0)
    assert found == matching.match_wrong(path, survey(tmp_path, twice[::-1], "turned.jsonl"))
    many = survey(tmp_path, map(right_row, range(100, 140)), "many.jsonl")
    assert matching.match_wrong(path, many).missing == 40 - 28
    nothing = write(tmp_path / "nothing.jsonl", wrong[:1])
    with pytest.raises(RowError, match="of 1 rows none can be trained on"):
        matching.match_wrong(nothing, many)


def test_the_sample_is_the_same_in_any_order_and_of_rows_with_a_thought(tmp_path):
    found = [right_row(n) for n in range(150)] + [
        {"prompt": str(n), "completion": "7"} for n in range(60)
    ]
    one, other = survey(tmp_path, found), survey(tmp_path, found[::-1], "turned.jsonl")
    ids = [{found[n]["id"] for n in one.sample}, {found[::-1][n]["id"] for n in other.sample}]
    assert len(one.sample) == 100 and ids[0] == ids[1] and one.donors == other.donors
    assert one.left_out == {"no thought tags": 60} and one.kept == 150 and one.rows == 210


def test_ids_are_given_where_there_are_none_and_kept_where_they_are():
    names = [matching.read_item(Item(4, "f:5", {**right_row(1), "id": id}), "f").key
             for id in (None, "", 0, "a")]  # fmt: skip
    assert names == ["f-000005", "f-000005", "0", "a"]
    row = {k: v for k, v in right_row(1).items() if k not in ("id", "source")}
    read_row = matching.read_item(Item(0, "f:1", row), "f")
    assert (read_row.key, read_row.trace.source) == ("f-000001", "f")


# ---- looking


@pytest.mark.parametrize("name", ["r7", ""])
def test_preview_shows_one_row_under_all_conditions_and_writes_nothing(
    tmp_path, monkeypatch, capsys, name
):
    rows_ = [right_row(n) for n in range(4, 9)]
    rows_[3] = replace_reply(rows_[3], reply(7).replace("apples", "\033[31mapples\x07"))
    path = write(tmp_path / "right.jsonl", rows_)
    wrong = write(tmp_path / "wrong.jsonl", map(wrong_row, range(4, 9)))
    run(
        monkeypatch,
        path,
        "--wrong",
        wrong,
        "--also",
        "digits50_single",
        "--preview",
        *filter(None, [name]),
    )
    out = capsys.readouterr().out
    for condition in ("correct", "wrong", "digits50_single", "delete100", "short"):
        assert f"\n===== {condition}" in out
    assert "===== delete33: 2 of 6 steps, 2 differ" in out or name == ""
    assert "\033" not in out and "\x07" not in out  # nothing in a trace commands the terminal
    assert sorted(p.name for p in tmp_path.iterdir()) == ["right.jsonl", "wrong.jsonl"]
    with pytest.raises(RowError, match="no row has the id 'r99'"):
        run(monkeypatch, path, "--preview", "r99")


def replace_reply(row: dict, text: str) -> dict:
    return sharegpt(row["conversations"][0]["value"], text, id=row["id"], solution=row["solution"])


def test_a_row_that_is_left_out_has_no_preview(tmp_path, monkeypatch):
    bad = {**replace_reply(right_row(1), thought("", "1")), "id": "bad"}
    path = write(tmp_path / "right.jsonl", [right_row(2), bad])
    with pytest.raises(RowError, match=r"right.jsonl:2: empty thought; this row is left out"):
        run(monkeypatch, path, "--preview", "bad")
    with pytest.raises(SystemExit):
        run(monkeypatch, path)


def test_columns_stand_beside_each_other_and_colour_marks_what_is_new():
    from data_prep import sidebyside

    before, after = reply(11), reply(11).replace("19", "91")
    lines = sidebyside.write_terminal(before, after, 85, True).splitlines()
    assert any(sidebyside.DIM in line and sidebyside.GREEN in line for line in lines)
    plain = sidebyside.write_terminal(before, after, 85, False).splitlines()
    assert all(
        len(line) <= 85 and line[40:43] in (" ~ ", " = ", "   ") for line in plain if line[40:]
    )
    marks = [pair.mark for pair in sidebyside.align(before, thought("", "else"))]
    assert set(marks) == {"~", "-"}
    table = sidebyside.write_markdown("<think>a | `b`\n</think>c", "<think>\nWait, 2</think>d")
    assert "| ~ | `a \\| 'b'` | `Wait, 2` |" in table


def test_what_was_not_done_is_told_at_the_end(tmp_path, monkeypatch, capsys):
    """A condition that changes no row, fewer wrong answers, and a file that nothing needed."""
    path = write(tmp_path / "right.jsonl", map(right_row, range(6)))
    wrong = write(tmp_path / "wrong.jsonl", map(wrong_row, range(4)))
    asked = "wrong,correct,delete50,delete100+digits50_thought"
    run(monkeypatch, path, "--out", tmp_path / "out", "--only", asked, "--wrong", wrong,
        "--solutions", tmp_path / "none.jsonl")  # fmt: skip
    told = capsys.readouterr().out
    assert told.count("warning:") == 1
    assert "warning: delete100+digits50_thought changes no row" in told
    assert "wrong: 4 matched, 0 drawn, 2 missing" in told
    assert "solutions" not in read_json(tmp_path / "out/manifest.json")
    with pytest.raises(RecipeError, match="--only ',' names no condition"):
        run(monkeypatch, path, "--out", tmp_path / "none", "--only", ",")
