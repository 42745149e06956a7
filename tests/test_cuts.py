"""Steps cut by a judge: the damage follows its cuts, and what it spoils is left to the rules."""

import re

import pytest
from chat_server import ChatServer, asked, good
from structure_cases import last, read, reply, right_row, run, write

from data_prep import cuts
from longcot import chat, rows, segment

ROWS = 12


def pieces_of(prompt: str) -> int:
    return len(re.findall(r"^\[\d+\] ", prompt, re.MULTILINE))


def judge(say) -> ChatServer:
    return ChatServer(lambda body, attempt: (200, good("", content=say(asked(body))), {}))


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "right.jsonl", map(right_row, range(ROWS)))


def words(url: str, *more: object) -> list:
    flags = ["--judge", url, "--judge-model", "judge", "--judge-steps"]
    return [*flags, "--only", "correct,delete50,shuffle100", *more]


def test_damage_is_done_to_the_judges_steps(tmp_path, path, monkeypatch):
    with judge(lambda prompt: "Two halves. [[1, 3]]") as server:
        run(monkeypatch, path, "--out", tmp_path / "out", *words(server.url))
    assert len(server.bodies) == ROWS and all(pieces_of(asked(b)) >= 3 for b in server.bodies)
    manifest = rows.read_json(tmp_path / "out/manifest.json")
    shuffled = {"unit": "steps", "of": 2 * ROWS, "touched": 2 * ROWS, "differs": 2 * ROWS}
    assert manifest["conditions"]["shuffle100"]["changes"] == [shuffled]
    assert manifest["judge"]["steps"]["by rules"] == {}
    assert manifest["judge"]["steps"]["prompt"] == segment.judge_fingerprint()
    found = {name: read(tmp_path / "out", name) for name in ("delete50", "shuffle100")}
    for number in range(ROWS):
        thought = chat.split(reply(number)).thought
        place = segment.candidates(thought)[2]
        halves = thought[:place].strip(), thought[place:].strip()
        left = chat.split(last(found["delete50"][f"r{number}"])).thought.strip()
        assert left in halves
        turned = chat.split(last(found["shuffle100"][f"r{number}"])).thought.strip()
        assert turned.startswith(halves[1]) and turned.endswith(halves[0])


def test_what_the_judge_spoils_is_cut_by_the_rules_and_counted(tmp_path, path, monkeypatch):
    with judge(lambda prompt: "no idea" if " 5 baskets" in prompt else "[[1, 2]]") as server:
        run(monkeypatch, path, "--out", tmp_path / "out", *words(server.url))
    manifest = rows.read_json(tmp_path / "out/manifest.json")
    assert manifest["judge"]["steps"]["by rules"] == {"no list in double brackets": 1}
    steps = len(segment.split_steps(chat.split(reply(5)).thought).texts)
    assert manifest["conditions"]["shuffle100"]["changes"][0]["of"] == 2 * (ROWS - 1) + steps


def test_a_second_run_asks_nothing_again(tmp_path, path, monkeypatch):
    out = tmp_path / "out"
    with judge(lambda prompt: "[[1, 3]]") as server:
        run(monkeypatch, path, "--out", out, *words(server.url))
        first = (out / "delete50.jsonl").read_bytes()
        for file in (*out.glob("*.jsonl"), out / "manifest.json"):
            file.unlink()
        run(monkeypatch, path, "--out", out, *words(server.url))
        assert len(server.bodies) == ROWS
    assert (out / "delete50.jsonl").read_bytes() == first


def test_judge_steps_needs_a_judge(path, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, path, "--out", tmp_path / "out", "--judge-steps")
    assert "--judge-steps needs --judge URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    "thought", ["", "  \n", "one", "\n\none. two\n\nWait, three.\n\n", "a\n\nb"]
)
def test_starts_are_where_the_steps_begin(thought):
    steps = segment.split_steps(thought)
    starts = cuts.starts_of(steps)
    assert [thought[start : start + len(text)] for start, text in zip(starts, steps.texts)] == list(
        steps.texts
    )
    if steps.texts:
        assert segment.cut(thought, starts[1:]) == steps
