"""Each way to damage a reply, on its own: what is touched, what stays, what is refused."""

import random
from collections import Counter
from fractions import Fraction

import pytest
from conftest import thought
from perturb_cases import AWKWARD, DONORS, LONG, STEPS

from longcot import chat
from longcot.damages import Given, Part, Rewrite, apply
from longcot.opened import open_reply
from longcot.segment import is_reflection

GIVEN = Given(DONORS, "own", None)


def do(reply: str, kind: str, percent: int, *options: str, seed: int = 0, given: Given = GIVEN):
    return apply(open_reply(reply), Part(kind, percent, options), random.Random(seed), given)


def test_counts_are_the_exact_share_with_halves_up():
    for percent in range(1, 101):
        share = {33: Fraction(1, 3), 67: Fraction(2, 3)}.get(percent, Fraction(percent, 100))
        for n in range(300):
            k = Part("delete", percent).count(n)
            assert Fraction(-1, 2) < k - share * n <= Fraction(1, 2), (percent, n)
    assert Part("delete", 33).count(100) == 33 and Part("delete", 67).count(100) == 67
    assert Part("delete", 33).count(300) == 100  # a third, not 33 per cent
    assert [Part("digits", 50).count(n) for n in range(6)] == [0, 1, 1, 2, 2, 3]


# ---- content


def test_numbers_become_integers_up_to_ten_everywhere_and_digits_digits():
    seen: Counter[str] = Counter()
    for seed in range(300):
        made, change, fault = do(LONG, "digits", 100, seed=seed)
        assert fault is None and change[:3] == ("numbers", change.of, change.of)
        numbers = [text for part in made.numbers for text in part[1::2]]
        assert set(numbers) <= set(map(str, range(11)))
        seen.update(numbers)
    assert set(seen) == set(map(str, range(11)))
    assert max(seen.values()) < 1.2 * min(seen.values())  # uniform
    made, change, _ = do(LONG, "digits", 100, "single")
    assert change.unit == "digits" and change.touched == sum(c.isdigit() for c in LONG)
    assert len(made.join()) == len(LONG)
    made, *_ = do(AWKWARD["awkward numbers"], "digits", 100, "thought")
    assert made.join().endswith("$-7$<|end_of_solution|>") and ", x2 " not in made.join()
    assert "x2 and 1e5" in made.join()


@pytest.mark.parametrize("options", [(), ("single",), ("thought",), ("thought", "single")])
def test_digits_change_nothing_but_digits_and_count_what_differs(options):
    for percent in (20, 50, 70, 100):
        made, change, fault = do(LONG, "digits", percent, *options, seed=percent)
        before, after = open_reply(LONG), made
        cut = (
            (before.digits, after.digits)
            if "single" in options
            else (before.numbers, after.numbers)
        )
        pairs = [
            (a, b) for one, other in zip(*cut, strict=True) for a, b in zip(one, other, strict=True)
        ]
        changed = [(a, b) for a, b in pairs if a != b]
        assert fault is None and len(changed) == change.differs <= change.touched
        assert all(a.replace(".", "").isdigit() and b.isdigit() for a, b in changed)
        assert change.touched == Part("digits", percent).count(change.of)
        if "thought" in options:
            assert made.tail == before.tail and made.solution == before.solution
        assert open_reply(made.join()).solution == made.solution


def test_sentences_with_reflection_go_and_their_paragraphs_stay_apart():
    made, change, fault = do(LONG, "keywords", 100)
    assert (change, fault) == (("sentences", 4, 4, 4), None)
    assert made.texts == (
        STEPS[0],
        "That is no whole number.",
        "Then 57 is right.",
        STEPS[4],
        "Good.",
    )
    assert made.steps.join() == "\n\n" + "\n\n".join(made.texts) + "\n\n"
    for seed in range(20):
        made, change, _ = do(LONG, "keywords", 50, seed=seed)
        assert change == ("sentences", 4, 2, 2)
        assert len(open_reply(made.join()).sentences[1]) == 2
    two_lines = thought("One, wait.\n\nTwo. Hmm. Three.", "4")
    assert do(two_lines, "keywords", 100)[0].steps.join() == "Two. Three."
    assert do(AWKWARD["only reflection"], "keywords", 100)[2] == "no sentence would be left"
    assert do(AWKWARD["no reflection"], "keywords", 50)[2] == "no reflection word"
    assert do(thought("One. Wait, two.", "2"), "keywords", 20)[2] == "too few reflection words"


def test_a_judges_rewrite_takes_the_thoughts_place_or_nothing_happens():
    edited = Given(rewrite=Rewrite("\nOne.\n\nTwo.\n", None))
    made, change, fault = do(LONG, "keywords", 100, "judge", given=edited)
    assert (change, fault) == (("replies", 1, 1, 1), None)
    assert made.join() == LONG.replace("\n\n".join(STEPS), "One.\n\nTwo.")
    drawn = [do(LONG, "keywords", 20, "judge", seed=s, given=edited)[2] for s in range(2000)]
    assert set(drawn) == {None, "not drawn"} and 330 < drawn.count(None) < 470
    broken = Given(rewrite=Rewrite("", "rewrite: words are added"))
    for other, reason in ((broken, "rewrite: words are added"), (Given(), "not rewritten")):
        made, change, fault = do(LONG, "keywords", 100, "judge", given=other)
        assert (made.join(), change.touched, fault) == (LONG, 0, reason)


# ---- structure


def test_deleted_steps_are_drawn_anywhere_or_in_a_row():
    seen: Counter[str] = Counter()
    for seed in range(600):
        made, change, _ = do(LONG, "delete", 33, seed=seed)
        assert change == ("steps", 6, 2, 2) and len(made.texts) == 4
        assert list(made.texts) == [text for text in STEPS if text in made.texts]
        assert made.tail == open_reply(LONG).tail
        seen.update(set(STEPS) - set(made.texts))
    assert set(seen) == set(STEPS) and max(seen.values()) < 1.4 * min(seen.values())
    for option, left in (
        ("start", STEPS[2:]),
        ("middle", STEPS[:2] + STEPS[4:]),
        ("end", STEPS[:4]),
    ):
        made, change, _ = do(LONG, "delete", 33, option)
        assert made.texts == tuple(left) and change.touched == 2


def test_of_two_gaps_that_meet_the_blank_line_stays():
    reply = thought(
        "It is one apple here. Wait, two.\n\nHmm, maybe it is three. Wait, no, it is four.", "4"
    )
    opened = open_reply(reply)
    assert opened.steps.gaps == ("", " ", "\n\n", " ", "")
    for seed in range(20):
        made, *_ = do(reply, "delete", 50, seed=seed)
        one, other = (opened.texts.index(text) for text in made.texts)
        met = opened.steps.gaps[one + 1 : other + 1]
        assert made.steps.gaps[1] == ("\n\n" if "\n\n" in met else " ")


def test_without_any_step_the_solution_in_its_tags_is_left():
    made, change, fault = do(LONG, "delete", 100)
    assert fault is None and change == ("steps", 6, 6, 6) and made.texts == ()
    assert made.join() == (
        "<|begin_of_solution|>\n\nSo 19 each, 1 left: \\boxed{19}.\n\n<|end_of_solution|>"
    )
    assert do(AWKWARD["think"], "delete", 100)[0].join() == "It is \\boxed{3}."
    assert do(AWKWARD["unopened"], "delete", 100)[0].join() == "It is \\boxed{3}."
    assert do(AWKWARD["empty solution"], "delete", 100)[2] == "empty solution"
    one = AWKWARD["one step"]
    assert do(one, "delete", 67)[2] == "no step would be left"
    assert do(one, "delete", 33)[2] == "too few steps"
    assert do(one, "delete", 100)[0].join() == "<|begin_of_solution|>\\boxed{15}<|end_of_solution|>"


@pytest.mark.parametrize("percent", [33, 67, 100])
def test_a_shuffle_permutes_some_places_and_is_never_the_identity(percent):
    orders = set()
    for seed in range(400):
        made, change, fault = do(LONG, "shuffle", percent, seed=seed)
        moved = [a != b for a, b in zip(STEPS, made.texts, strict=True)]
        assert fault is None and change.touched == Part("shuffle", percent).count(6)
        assert 2 <= sum(moved) == change.differs <= change.touched
        assert sorted(made.texts) == sorted(STEPS)
        orders.add(made.texts)
    assert len(orders) >= {33: 15, 67: 130, 100: 250}[percent]  # of 15, 190 and 719
    assert (
        do(thought("Wait, 1.\n\nWait, 2.", "3"), "shuffle", 33)[2]
        == "one step cannot change places"
    )


def test_a_shuffle_can_keep_to_one_end_or_to_reflection():
    for seed in range(50):
        made, *_ = do(LONG, "shuffle", 33, "end", seed=seed)
        assert made.texts == (*STEPS[:4], STEPS[5], STEPS[4])
        made, change, _ = do(LONG, "shuffle", 100, "reflection", seed=seed)
        plain = [text for text in STEPS if not is_reflection(text)]
        assert [t for t in made.texts if not is_reflection(t)] == plain and len(plain) == 2
        assert (change.of, change.touched) == (4, 4) and made.texts != tuple(STEPS)
        assert (made.texts[0], made.texts[4]) == (STEPS[0], STEPS[4])
    assert do(AWKWARD["no reflection"], "shuffle", 100, "reflection")[2] == "no reflection step"


def test_inserted_steps_replace_and_come_from_other_questions():
    pool = {text for texts in DONORS.steps for text in texts}
    for percent in (33, 67, 100):
        for seed in range(100):
            made, change, fault = do(LONG, "insert", percent, seed=seed)
            new = [b for a, b in zip(STEPS, made.texts, strict=True) if a != b]
            assert fault is None and len(new) == change.touched == Part("", percent).count(6)
            assert set(new) <= pool
            assert open_reply(made.join()).solution == open_reply(LONG).solution
    made, *_ = do(LONG, "insert", 100, given=Given(DONORS, "other"))
    assert set(made.texts) == {"Hmm, 42 then."}
    none = Given(DONORS.__class__(("own",), (("a",),)), "own")
    assert do(LONG, "insert", 33, given=none)[2] == "no donor"
    assert do(LONG, "insert", 33, given=Given())[2] == "no donor"


def test_a_table_that_comes_beside_a_sentence_keeps_its_lines():
    reply = thought(
        "First one is 1, that is all there is. Wait, let me check it: yes it is 1.", "1"
    )
    assert len(open_reply(reply).texts) == 2
    table = Given(DONORS.__class__(("other",), (("| a |\n|---|\n| 1 |",),)), "own")
    made, *_ = do(reply, "insert", 100, given=table)
    assert made.steps.join() == "| a |\n|---|\n| 1 |\n\n| a |\n|---|\n| 1 |"


@pytest.mark.parametrize("kind", ["delete", "insert", "shuffle", "keywords"])
@pytest.mark.parametrize("name", ["no thought", "unclosed thought", "empty thought", "empty"])
def test_what_has_no_steps_stays_as_it_is(kind, name):
    made, change, fault = do(AWKWARD[name], kind, 100)
    wanted = {
        "no thought": "no thought",
        "unclosed thought": "unclosed thought",
        "empty": "no thought",
    }
    empty = "no reflection word" if kind == "keywords" else "no step"
    assert made.join() == AWKWARD[name] and change[1:] == (0, 0, 0)
    assert fault == wanted.get(name, empty)
    assert chat.split(made.join()) == chat.split(AWKWARD[name])
