"""Conditions by name, and what holds for every reply under every condition."""

import random

import pytest
from perturb_cases import AWKWARD, DONORS, LONG, random_reply

from longcot import chat, keywords, perturb
from longcot.damages import Part
from longcot.errors import RecipeError
from longcot.opened import open_reply
from longcot.perturb import CONDITIONS, WHOLE, damage, read_variant
from longcot.rows import Trace

EXTRA = (
    "digits50_thought", "digits100_thought_single", "digits20_single", "digits10", "delete33_start",
    "delete67_end", "insert33_middle", "insert67_end", "shuffle33_start", "shuffle100_reflection",
    "shuffle67_reflection_end", "digits50+delete33", "keywords100+shuffle67",
    "insert33+digits70_thought", "shuffle33+delete100",
)  # fmt: skip
DAMAGES = [name for name in CONDITIONS if name not in WHOLE[1:]] + list(EXTRA)


def fault(reply: str, format: str) -> str | None:
    return chat.fault(Trace("", "", None, (("user", "q"), ("assistant", reply))), format)


def test_the_nineteen_conditions_are_those_of_the_tables():
    assert len(set(CONDITIONS)) == 19
    for name in (*CONDITIONS, *EXTRA):
        variant = read_variant(name)
        assert variant.name == name
        assert variant.has_thought == (name != "short" and "delete100" not in name)
        assert variant.takes_donors == ("insert" in name) and not variant.asks_judge
    assert read_variant("keywords50_judge").asks_judge
    assert read_variant("digits50_single_thought").name == "digits50_thought_single"
    assert read_variant("delete33").parts == (Part("delete", 33),)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("digit50", 'did you mean "digits50"?'),
        ("digits5O", 'did you mean "digits50"?'),
        ("shufle67", 'did you mean "shuffle67"?'),
        ("delete0", 'did you mean "delete'),
        ("delete033", 'did you mean "delete33"?'),
        ("insert101", 'did you mean "insert1'),
        ("digits50_tought", 'did you mean "digits50_thought"?'),
        ("digits50_start", "options (digits: _thought _single; keywords: _judge"),
        ("digits50_", "is unknown"),
        ("digits50_single_single", "is unknown"),
        ("delete33_start_end", "take one of start, middle, end"),
        ("digits50+", "'' is unknown"),
        ("correct+digits50", "'correct' is unknown"),
        ("delete33+keywords50_judge", "put its part first"),
        ("", "is unknown"),
        ("Digits50", "is unknown"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, told):
    with pytest.raises(RecipeError) as caught:
        read_variant(name)
    assert told in str(caught.value) and repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def check(reply: str, name: str, key: str) -> perturb.Damaged:
    """What must hold for any reply under any condition."""
    variant, before = read_variant(name), open_reply(reply)
    made = damage(reply, variant, key, DONORS, question="own")
    assert made == damage(before, variant, key, DONORS, question="own")  # cut once, damaged often
    format = chat.told_format(reply)
    parts = chat.split(reply)
    after = chat.split(made.reply, format if variant.has_thought else "plain")
    if made.unchanged or name == "correct":
        assert made.reply == reply and made.touched == made.differs == 0
        assert made.texts == before.texts
        return made
    first = variant.parts[0].count(made.changes[0].of)
    assert made.changes[0].touched == first > 0
    assert all(change.differs <= change.touched <= change.of for change in made.changes)
    if "digits" not in name or "digits70_thought" in name or name.startswith("digits50_thought"):
        assert parts.solution.strip() in after.solution
        whole = before.tail if variant.has_thought else before.solution
        assert made.reply.endswith(whole)
    if before.texts:
        assert bool((after.thought or "").strip()) == variant.has_thought == bool(made.texts)
    if variant.has_thought:
        assert chat.told_format(made.reply) == format
    if fault(reply, format) is None:
        assert fault(made.reply, format if variant.has_thought else "plain") is None
    if name == "keywords100":
        assert keywords.count(chat.split(made.reply).thought or "") == 0
    return made


@pytest.mark.parametrize("name", DAMAGES)
def test_awkward_replies_are_damaged_whole_or_left_alone(name):
    for key, reply in {**AWKWARD, "long": LONG}.items():
        check(reply, name, key)


@pytest.mark.parametrize("name", DAMAGES)
def test_random_replies_are_damaged_whole_or_left_alone(name):
    done = sum(
        check(random_reply(seed), name, f"row {seed}").unchanged is None for seed in range(400)
    )
    assert done > 100


def test_a_reply_opened_once_bears_every_condition_in_any_order():
    opened = open_reply(LONG)
    for name in (*DAMAGES, *reversed(DAMAGES)):
        variant = read_variant(name)
        assert damage(opened, variant, "row", DONORS) == damage(LONG, variant, "row", DONORS), name
    assert opened.join() == LONG and opened == open_reply(LONG)


def test_texts_are_the_steps_of_the_damaged_reply():
    for name in DAMAGES:
        made = damage(LONG, read_variant(name), "row", DONORS)
        thought = chat.split(made.reply).thought or ""
        assert "".join(thought.split()) == "".join("".join(made.texts).split()), name


def test_damage_depends_on_the_id_and_the_name_alone():
    many = [f"row-{number}" for number in range(40)]
    shuffled = random.Random(0).sample(many, 40)
    for name in ("digits50", "delete33", "insert67", "shuffle33", "keywords50"):
        variant = read_variant(name)
        one = {key: damage(LONG, variant, key, DONORS) for key in many}
        random.seed(7)
        assert one == {key: damage(LONG, variant, key, DONORS) for key in shuffled}
        assert len({made.reply for made in one.values()}) > 3
    names = ("delete33", "delete33+shuffle67")  # the same first damage, of other steps
    kept = [[sorted(damage(LONG, read_variant(n), k).texts) for k in many] for n in names]
    assert {len(texts) for texts in kept[0] + kept[1]} == {4} and kept[0] != kept[1]


def test_joined_damages_go_from_left_to_right_and_all_or_nothing():
    made = damage(LONG, read_variant("digits100_thought+delete33"), "row")
    assert (made.unit, len(made.texts)) == ("numbers+steps", 4)
    assert made.touched == sum(change.touched for change in made.changes)
    numbers = [text for part in open_reply(made.reply).numbers[1:-1] for text in part[1::2]]
    assert numbers and all(int(text) <= 10 for text in numbers)
    gone = damage(LONG, read_variant("delete100+shuffle33"), "row")
    assert gone.unchanged == "no thought" and gone.reply == LONG
    assert [change[1:] for change in gone.changes] == [(6, 0, 0), (0, 0, 0)]


def test_wrong_and_short_are_no_damage():
    for name in ("wrong", "short"):
        with pytest.raises(ValueError, match=f"{name} is no damage"):
            damage(LONG, read_variant(name), "row")
    assert damage(LONG, read_variant("correct"), "row").reply == LONG


# ---- donors


def test_donors_are_a_bounded_sample_whatever_the_order():
    given = [(f"id-{n}", f"question {n % 7}", LONG.replace("58", str(n))) for n in range(50)]
    pool = perturb.gather_donors(given, 20)
    assert len(pool.steps) == len(pool.questions) == 20
    assert pool == perturb.gather_donors(given[::-1], 20)
    ranked = sorted(given, key=lambda row: perturb.hash_key(row[0]))[:20]
    assert pool.questions == tuple(question for _, question, _ in ranked)
    assert pool.steps == tuple(open_reply(reply).texts for *_, reply in ranked)
    assert len(perturb.gather_donors(given, 99).steps) == 50


def test_unsound_replies_and_steps_with_tags_give_nothing():
    given = [(name, name, reply) for name, reply in AWKWARD.items()]
    pool = perturb.gather_donors(given)
    unsound = {"no thought", "unclosed thought", "empty thought", "empty solution", "empty"}
    assert not unsound & set(pool.questions)
    assert "think" in pool.questions and "nested tags" in pool.questions
    assert not any("<" in text for texts in pool.steps for text in texts)


def test_a_row_gets_no_step_of_its_own_question():
    rng = random.Random(0)
    assert set(DONORS.draw(rng, "other", 50)) == {"Hmm, 42 then."}
    assert set(DONORS.draw(rng, "mine", 200)) == {text for texts in DONORS.steps for text in texts}
    assert perturb.Donors(("mine",) * 3, (("a",),) * 3).draw(rng, "mine", 1) == []
    assert perturb.Donors((), ()).draw(rng, "mine", 1) == []
