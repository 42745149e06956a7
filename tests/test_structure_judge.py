"""Keywords removed by a judge: who is asked, what is taken, what a kill leaves."""

import json
import re

import pytest
from chat_server import ChatServer, asked, good, refusing_url
from structure_cases import last, question, read, reply, right_row, run, write

from data_prep import reflections
from longcot import chat, keywords, rows
from longcot.errors import ClientError, RowError
from longcot.perturb import is_rewritten, read_variant

REFLECTION = re.compile(r"[^.\n]*\b(?:Wait|wait|maybe|Alternatively|Let me verify)\b[^.]*\.\s*")


def edit(thought: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", REFLECTION.sub("", thought)).strip()


def judge(behave=lambda thought, attempt: f"Fine.\n<edited>\n{edit(thought)}\n</edited>"):
    """A server that answers the thought it is sent, as `behave` says."""

    def answer(body: dict, attempt: int):
        text = behave(asked(body), attempt)
        return (500, {}, {}) if text is None else (200, good("", content=text), {})

    return ChatServer(answer)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "right.jsonl", map(right_row, range(40)))


def words(url: str, *more: object) -> list:
    flags = ["--judge", url, "--judge-model", "judge"]
    return [*flags, "--only", "keywords50_judge,keywords100_judge,correct", *more]


def drawn(name: str) -> set[str]:
    return {f"r{n}" for n in range(40) if is_rewritten(f"r{n}", read_variant(name))}


def test_the_judge_edits_the_thoughts_of_the_drawn_rows_and_nothing_else(
    tmp_path, path, monkeypatch
):
    with judge() as server:
        run(monkeypatch, path, "--out", tmp_path / "out", *words(server.url))
        assert len(server.bodies) == 40  # each thought once, for both conditions
    body = next(b for b in server.bodies if asked(b) == chat.split(reply(7)).thought.strip())
    assert body["temperature"] == 0.7 and body["max_tokens"] == 16384
    assert [turn["role"] for turn in body["messages"]] == ["system", "user", "assistant", "user"]
    for name in ("keywords50_judge", "keywords100_judge"):
        found = read(tmp_path / "out", name)
        changed = {key for key in found if last(found[key]) != reply(int(key[1:]))}
        assert changed == drawn(name)
        for key in changed:
            before, after = chat.split(reply(int(key[1:]))), chat.split(last(found[key]))
            assert after.solution == before.solution
            assert after.thought == f"\n\n{edit(before.thought)}\n\n"
            assert keywords.count(after.thought) == 0
    assert len(drawn("keywords100_judge")) == 40 and 10 < len(drawn("keywords50_judge")) < 30
    manifest = rows.read_json(tmp_path / "out/manifest.json")
    entry = manifest["conditions"]["keywords50_judge"]
    n = len(drawn("keywords50_judge"))
    assert entry["unchanged"] == {"not drawn": 40 - n}
    assert entry["changes"] == [{"unit": "replies", "of": 40, "touched": n, "differs": n}]
    assert manifest["judge"] == {
        "model": "judge", "prompt": reflections.fingerprint(), **reflections.SAMPLING,
    }  # fmt: skip


def test_what_the_judge_spoils_stays_as_it_was_and_is_counted(tmp_path, path, monkeypatch):
    spoilt = {
        "no tags": lambda t: edit(t),
        "added": lambda t: f"<edited>{edit(t)} And so on, and on, with many more words.</edited>",
        "nothing": lambda t: "<edited>Okay</edited>",
        "as before": lambda t: f"<edited>{t}</edited>",
        "tags": lambda t: f"<edited>{edit(t)}<|end_of_solution|></edited>",
    }
    by_thought = {
        chat.split(reply(n)).thought.strip(): way for n, way in enumerate(spoilt.values(), 10)
    }
    with judge(
        lambda t, _: by_thought.get(t, lambda t: f"<edited>{edit(t)}</edited>")(t)
    ) as server:
        run(monkeypatch, path, "--out", tmp_path / "out", *words(server.url))
    found = read(tmp_path / "out", "keywords100_judge")
    unchanged = {key for key in found if last(found[key]) == reply(int(key[1:]))}
    assert unchanged == {f"r{n}" for n in range(10, 15)}
    told = rows.read_json(tmp_path / "out/manifest.json")["conditions"]["keywords100_judge"]
    assert told["unchanged"] == {
        "rewrite: a reply's own tags": 1, "rewrite: hardly a word is left": 1,
        "rewrite: no reflection word is gone": 1, "rewrite: not between its tags": 1,
        "rewrite: words are added": 1,
    }  # fmt: skip


def test_a_cut_run_goes_on_and_failed_calls_are_asked_again(tmp_path, path, monkeypatch):
    out = tmp_path / "out"
    bad = chat.split(reply(5)).thought.strip()
    with judge(lambda t, n: None if t == bad else f"<edited>{edit(t)}</edited>") as server:
        monkeypatch.setattr("longcot.client.FIRST_WAIT", 0.001)
        run(monkeypatch, path, "--out", out, *words(server.url))
        asked_before = len(server.bodies)
        told = rows.read_json(out / "manifest.json")["conditions"]["keywords100_judge"]
        assert told["unchanged"] == {"call failed: HTTP 500": 1}
        for name in ("manifest.json", "report.md", "correct.jsonl", "keywords50_judge.jsonl"):
            (out / name).unlink()
        (out / "keywords100_judge.jsonl").unlink()
        edited = out / "judge/2_edited.jsonl"
        edited.write_bytes(edited.read_bytes()[:-9])  # killed in the middle of a line
        server.behave = lambda body, _: (
            200, good("", content=f"<edited>{edit(asked(body))}</edited>"), {}
        )  # fmt: skip
        run(monkeypatch, path, "--out", out, *words(server.url, "--retry-failed"))
        assert len(server.bodies) - asked_before in (1, 2)  # the cut row's and the failed one's
    told = rows.read_json(out / "manifest.json")["conditions"]["keywords100_judge"]
    assert told["unchanged"] == {}
    (out / "manifest.json").unlink()
    for file in out.glob("*.jsonl"):
        file.unlink()
    other = write(tmp_path / "other.jsonl", map(right_row, range(41)))
    with pytest.raises(RowError, match="made with other settings .*source"):
        run(monkeypatch, other, "--out", out, *words(server.url))


def test_a_judge_that_cannot_be_asked_leaves_no_condition_behind(tmp_path, path, monkeypatch):
    monkeypatch.setattr("longcot.client.REST", 0.01)
    with pytest.raises(ClientError, match="no connection to"):
        run(monkeypatch, path, "--out", tmp_path / "out", *words(refusing_url()))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["judge"]
    with pytest.raises(SystemExit):
        run(monkeypatch, path, "--out", tmp_path / "o", "--judge", "http://127.0.0.1:1/v1")


def test_rows_of_one_id_have_their_own_edits(tmp_path, monkeypatch):
    twice = [{**right_row(n), "id": "same"} for n in (3, 7)]
    twice += [{"id": "calm", "prompt": question(1), "completion": "<think>So 1.</think>1"}]
    path = write(tmp_path / "right.jsonl", twice)
    with judge() as server:
        run(monkeypatch, path, "--out", tmp_path / "out", *words(server.url))
        assert len(server.bodies) == 2  # nothing to take out of a thought without reflection
    found = [row for _, row in rows.read_jsonl(tmp_path / "out/keywords100_judge.jsonl")]
    assert [edit(chat.split(reply(n)).thought) in last(row) for n, row in zip((3, 7), found)]
    assert edit(chat.split(reply(3)).thought) in last(found[0])
    assert edit(chat.split(reply(7)).thought) in last(found[1])
    entry = json.loads((tmp_path / "out/manifest.json").read_text())["conditions"]
    assert entry["keywords100_judge"]["unchanged"] == {"no reflection word": 1}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("<edited>One two three four.</edited>", None),
        ("<think>hm <edited>x</edited></think> <edited>One two three four.</edited>\n", None),
        ("<edited>One two three four.</edited> Done.", "rewrite: not between its tags"),
        ("<edited>One <edited>two three four.</edited></edited>", "rewrite: not between its tags"),
        ("", "rewrite: not between its tags"),
        ("<edited></edited>", "rewrite: hardly a word is left"),
        ("<edited>One two three five.</edited>", "rewrite: words are added"),
        ("<edited>One two wait</edited>", "rewrite: no reflection word is gone"),
    ],
)
def test_answers_are_read_strictly(answer, fault):
    assert reflections.read_edit("One two. Wait, three four.", answer)[1] == fault
