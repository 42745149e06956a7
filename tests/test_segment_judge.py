"""The judge way: what a judge is shown, how its reply is read or refused, how far two ways agree."""

import random
import re

import pytest
from chat_server import ChatServer, asked, endpoint, good, impatient  # noqa: F401
from segment_cases import draw

from longcot import segment
from longcot.client import Answer
from longcot.errors import ClientError
from longcot.segment import Agreement, agreement, split_steps

THOUGHT = (
    "\n\nSo we add. 2 + 2 = 4.\n\nThus 4.\n- four\n\n```\na\n\nWait\n```\n\nWait, is it? Yes.\n"
)
PIECES = (
    "So we add.",
    "2 + 2 = 4.",
    "Thus 4.\n- four",
    "```\na\n\nWait\n```",
    "Wait, is it?",
    "Yes.",
)


def answer(text: str, reason: str | None = "stop", error: str | None = None) -> Answer:
    return Answer("k", text, None, reason, 1, 1, 0, 0.1, "", error)


def test_a_judge_is_shown_the_question_and_numbered_pieces():
    (message,) = segment.judge_messages(" What is 2 + 2?\n", THOUGHT)
    asks, question, shown = re.split(r"\n\n(?:Question|Thinking):\n\n", message["content"])
    assert message["role"] == "user" and question == "What is 2 + 2?"
    assert "[[1, 4, 5, 9]]" in asks
    first, second, third, *others = PIECES
    block, wait, yes = others
    assert shown == (
        f"[1] {first}\n[2] {second}\n\n[3] {third}\n\n[4] {block}\n\n[5] {wait}\n[6] {yes}"
    )


@pytest.mark.parametrize(
    ("reply", "texts"),
    [
        ("[[1, 5]]", 2),
        ("<think>\n[[1, 2]] or [[9]]?\n</think>\n\nThese: [[1,3 , 5]]", 3),
        ("First [[1, 2]], better:\n[[\n5\n]]", 2),
        ("[[1]]", 1),
        ("[[1, 2, 3, 4, 5, 6]]", 6),
    ],
)
def test_a_reply_is_read_and_the_thought_comes_back(reply, texts):
    judged = segment.read_judge(THOUGHT, answer(reply))
    assert judged.fallback is None and len(judged.steps.texts) == texts
    assert judged.steps.join() == THOUGHT
    if texts == 6:
        assert judged.steps.texts == PIECES


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "no list in double brackets"),
        ("1, 5", "no list in double brackets"),
        ("[1, 5]", "no list in double brackets"),
        ("<think>\n[[1, 5]]", "no list in double brackets"),
        ("[[]]", "not a list of whole numbers"),
        ("[[1, 5,]]", "not a list of whole numbers"),
        ("[[1-5]]", "not a list of whole numbers"),
        ("[[1, -5]]", "not a list of whole numbers"),
        ("[[1, 2.5]]", "not a list of whole numbers"),
        ("[[1, \u0665]]", "not a list of whole numbers"),
        ("[[1, 99999999999999]]", "not a list of whole numbers"),
        ("[[1, 5]] no, [[all]]", "not a list of whole numbers"),
        ("[[5, 1]]", "numbers not ascending"),
        ("[[1, 1, 5]]", "numbers not ascending"),
        ("[[0, 5]]", "a number of no piece"),
        ("[[1, 7]]", "a number of no piece"),
    ],
)
def test_a_malformed_reply_is_refused_and_the_rules_take_over(reply, why):
    judged = segment.read_judge(THOUGHT, answer(reply))
    assert judged == segment.Judged(split_steps(THOUGHT), why)


def test_a_reply_that_is_none_or_not_complete_is_refused():
    def why(*told) -> str | None:
        return segment.read_judge(THOUGHT, answer("[[1, 5]]", *told)).fallback

    assert why("length") == "cut at max_tokens"
    assert why("content_filter") == "finish_reason content_filter"
    assert why(None) == "finish_reason None"
    assert why("stop", "HTTP 400: too long") == "call failed: HTTP 400"
    assert why("stop") is None


def test_all_thoughts_go_through_the_client_and_every_fallback_says_why():
    thoughts = {
        f"k{i}": f"Number {i} is here. It is {i}.\n\nWait, no. It is {i + 1}." for i in range(6)
    }

    def behave(body, attempt):
        number = int(re.findall(r"Number (\d)", asked(body))[0])
        if number == 1 and attempt == 0 or number == 2:
            return 500, {}, {}
        text = {3: "none", 4: "[[1, 9]]"}.get(number, "[[1, 2]]")
        return 200, good("", content=text), {}

    rows = [(key, f"How much is {key}?", thought) for key, thought in thoughts.items()]
    with ChatServer(behave) as server:
        asks = endpoint(server.url, max_retries=1)
        found = segment.judge_all(
            [*rows, ("one", "?", "One."), ("no", "?", "\n")], asks, {"seed": 1}
        )
    assert {body["seed"] for body in server.bodies} == {1}
    assert {asked(body) for body in server.bodies} == {
        segment.judge_messages(question, thought)[0]["content"] for _, question, thought in rows
    }
    assert {key: judged.fallback for key, judged in found.items()} == {
        "k0": None, "k1": None, "k2": "call failed: HTTP 500", "k3": "no list in double brackets",
        "k4": "a number of no piece", "k5": None, "one": None, "no": None,
    }  # fmt: skip
    for key, thought in thoughts.items():
        assert found[key].steps.join() == thought
        first = f"Number {key[1]} is here."
        by_rules = f"{first} It is {key[1]}."
        assert found[key].steps.texts[0] == (by_rules if found[key].fallback else first)
    assert found["no"].steps == split_steps("\n")
    with pytest.raises(ClientError, match="0 URLs"):
        segment.judge_all(rows, endpoint(), {})


def test_any_choice_of_pieces_comes_back_byte_for_byte():
    rng = random.Random(3)
    for _ in range(500):
        text, _ = draw(rng)
        count = len(segment.candidates(text))
        chosen = sorted(rng.sample(range(1, count + 1), rng.randint(1, count))) if count else [1]
        judged = segment.read_judge(text, answer(f"[[{', '.join(map(str, chosen))}]]"))
        assert judged.steps.join() == text
        assert len(judged.steps.texts) == (len({1, *chosen}) if count else 0)


def test_the_fingerprint_tells_the_wording(monkeypatch):
    before = segment.judge_fingerprint()
    assert before == segment.judge_fingerprint()
    monkeypatch.setattr(segment, "_ASK", segment._ASK + " ")
    assert segment.judge_fingerprint() != before


def test_agreement_by_hand():
    judged = segment.read_judge(THOUGHT, answer("[[1, 2, 4]]")).steps
    other = segment.read_judge(THOUGHT, answer("[[1, 4, 5]]")).steps
    found = agreement(judged, other)
    assert found == Agreement(both=1, first=1, second=1, neither=2)
    assert found.f1 == 0.5
    # Cohen: observed 3/5, chance 0.4 * 0.4 + 0.6 * 0.6 = 0.52.
    assert found.kappa == pytest.approx((0.6 - 0.52) / (1 - 0.52))
    more = segment.read_judge(THOUGHT, answer("[[1, 4, 5, 6]]")).steps
    assert (agreement(judged, more), agreement(more, judged)) == (
        Agreement(1, 1, 2, 1),
        Agreement(1, 2, 1, 1),
    )
    same = agreement(judged, judged)
    assert (same.f1, same.kappa) == (1, 1)
    assert found + same == Agreement(3, 1, 1, 5)
    assert (Agreement().f1, Agreement().kappa) == (1, 1)
    assert Agreement(0, 2, 2, 0).f1 == 0 and Agreement(0, 2, 2, 0).kappa == -1
    assert Agreement(neither=4).kappa == 1
    with pytest.raises(ValueError, match="two different thoughts"):
        agreement(judged, split_steps("x"))


def test_kappa_of_ways_that_know_nothing_of_each_other_is_near_zero():
    rng = random.Random(0)
    counts = [0, 0, 0, 0]
    for _ in range(20_000):
        counts[(rng.random() > 0.3) * 2 + (rng.random() > 0.4)] += 1
    assert abs(Agreement(*counts).kappa) < 0.02 < Agreement(*counts).f1
