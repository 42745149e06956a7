"""Replies for the tests of damage: ordinary, awkward and random ones."""

import random

from conftest import thought

from longcot import chat
from longcot.perturb import Donors

STEPS = [
    "Okay, start with 58 apples in 3 baskets.",
    "Wait, let me check: 3 * 19 = 57.",
    "Alternatively, 58 / 3 = 19.33. That is no whole number.",
    "But wait, maybe one apple is left. Then 57 is right.",
    "(a) Now 19 apples a basket.\n\n| basket | apples |\n|---|---|\n| 1 | 19 |",
    "Let me verify: 19 + 19 + 19 + 1 = 58. Good.",
]
LONG = thought("\n\n" + "\n\n".join(STEPS) + "\n\n", "\n\nSo 19 each, 1 left: \\boxed{19}.\n\n")
AWKWARD = {
    "nested tags": thought(
        "\n\nOkay, <|end_of_thought|> ends a thought, 1 tag. <think>2</think>\n\n"
        "Wait, <|begin_of_thought|> opens it.\n\nHmm, maybe 3.\n\n",
        "\n\nTags: \\boxed{3}\n\n",
    ),
    "no thought": "The answer is \\boxed{12}.",
    "unclosed thought": "<|begin_of_thought|>\n\nWait, 12. Hmm, 13.",
    "empty thought": thought("\n\n", "\\boxed{1}"),
    "empty solution": thought("One. Wait, two.", "\n\n"),
    "one step": thought("Just 7 and 8.", "\\boxed{15}"),
    "no digits": thought("\n\nOne.\n\nWait, two.\n\n", "\n\nThree.\n\n"),
    "no reflection": thought("\n\nAdd 1 to 2.\n\n(b) Take 3.\n\n", "\n\n\\boxed{3}\n\n"),
    "only reflection": thought("Wait, hmm. Maybe.", "\\boxed{1}"),
    "Unicode digits": thought("\u0663 plus \uff15.\n\nWait, \u00b2 is no digit.", "\\boxed{8}"),
    "awkward numbers": thought(
        "1,234.56 and -7 and 3.14.15 and x2 and 1e5 and 10%.\n\nWait, \\boxed{12} is 007.", "$-7$"
    ),
    "think": "<think>\nFirst 1.\n\nWait, 2.\n\nHmm, 3.\n</think>\n\nIt is \\boxed{3}.",
    "unopened": "First 1.\n\nWait, 2.\n</think>\n\nIt is \\boxed{3}.",
    "code and lines": thought(
        "\r\nRun it:\n\n```python\n# wait 5\nprint(5)\n```\n\nWait, it\tprints 5.\u2028Hmm.\n", "5"
    ),
    "text before": "Sure! " + thought("Wait, 1.\n\nHmm, 2.\n\nSo 3.", "\\boxed{3}"),
    "twice the same": thought("Wait, 1.\n\nWait, 1.\n\nWait, 1.", "\\boxed{1}"),
    "empty": "",
    "white space": " \n\n ",
}
DONORS = Donors(
    ("other", "third"),
    (("Wait, the sum of angles is 180.", "So it is\n\n| a |\n|---|\n| 60 |"), ("Hmm, 42 then.",)),
)
_TEXT = (
    "Wait, check 12. Hmm 3.5 and -4, perhaps! | maybe (a) Case 2: let me think again . ? \\boxed{7} "
    "the <think> </think> ``` $$ x_1 2x \u0664 caf\u00e9 \u2028 1,000 e.g. 3.14.15 Alternatively,"
)
_WORDS = _TEXT.split(" ")
_GAPS = ("\n\n", "\n", " ", " ", "  \n \n", "\t", "\n\n\n")


def random_reply(seed: int) -> str:
    """A reply of up to 120 words, in either format or none, sometimes broken."""
    rng = random.Random(seed)

    def text(longest: int) -> str:
        words = rng.choices(_WORDS, k=rng.randint(0, longest))
        return "".join(word + rng.choice(_GAPS) for word in words)

    format = rng.choice(("thought_solution", "thought_solution", "think", "plain"))
    reply = chat.lay_out(text(120), text(12) + "so \\boxed{5}", format)
    return reply if rng.random() < 0.9 else reply[: rng.randint(0, len(reply))]
