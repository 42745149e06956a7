"""Benchmark questions and repeated rows are found in any dress; clean rows are left alone."""

import json
import pickle
import random
import re
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from data_prep import rehearsal
from longcot import contamination
from longcot.contamination import Index, duplicates, normalise, signature
from longcot.errors import BenchmarkError

N, OVERLAP = 8, 0.5
BENCHMARKS = {
    "aime24": ("aime24", "problem"),
    "aime25": ("aime25", "problem"),
    "amc23": ("amc23", "problem"),
    "math500": ("math500", "problem"),
    "olympiadbench": ("olympiadbench_oe_to_maths_en", "question"),
    "gsm8k": ("gsm8k_test", "question"),
    "humaneval": ("humaneval", "prompt"),
    "mbpp": ("mbpp_test", "prompt"),
    "livecodebench": ("lcb_like_sample", "question_content"),
}
TRAINS = (
    "A train leaves the station at 9 in the morning and travels 120 miles at a steady speed of 40 "
    "miles per hour before it stops for half an hour. At what time does it reach the next town?"
)


@pytest.fixture(scope="module")
def questions(shared) -> list[tuple[str, str, str]]:
    found = []
    for name, (file, column) in BENCHMARKS.items():
        lines = (shared / "data" / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
        found += [(name, str(i), json.loads(line)[column]) for i, line in enumerate(lines)]
    return found


@pytest.fixture(scope="module")
def index(questions) -> Index:
    return Index(questions, N)


def redress(text: str) -> str:
    """The same problem as another site would print it."""
    for dressed, plain in (("$", " "), (r"\left", ""), (r"\right", ""), (r"\dfrac", r"\frac")):
        text = text.replace(dressed, plain)
    pieces = re.split(r"(\\[A-Za-z]+)", re.sub(r"\s+", "  ", text))
    return "".join(piece if piece.startswith("\\") else piece.upper() for piece in pieces)


def instruct(text: str) -> str:
    return f"Solve this problem, step by step.\n\n{text}\n\nPut your final answer in \\boxed{{}}."


def draw_clean(count: int) -> list[str]:
    """Half rehearsal problems, half the commonest turns of contest problems with fresh numbers."""
    rng = random.Random(0)
    chains = rehearsal.draw_training(count // 2, 0)
    texts = [rehearsal.render_problem(problem) for problem, _ in chains]
    turns = [
        "A farmer has {} sheep and buys {} more every week. How many sheep are there after {} weeks?",
        "Find the sum of all positive integers less than {} divisible by {} but not by {}.",
        "Let $ABC$ be a triangle with $AB = {}$, $BC = {}$ and $CA = {}$. Its area can be written as "
        r"$\frac{{m}}{{n}}$, where $m$ and $n$ are relatively prime positive integers. Find $m+n$.",
        "Write a function that returns the {} largest of {} numbers, each multiplied by {}.",
    ]
    numbers = rng.sample(range(10, 10**6), 3 * (count - len(texts)))
    for i in range(count - len(texts)):
        texts.append(turns[i % 4].format(*numbers[3 * i : 3 * i + 3]))
    return texts


def draw_words(rng: random.Random, count: int, vocabulary: int = 40) -> list[str]:
    return [rng.choice(("+", "7", "\\frac", "x")) if rng.random() < 0.1
            else f"{'abcdefgh'[rng.randrange(8)]}{'ijklm'[rng.randrange(vocabulary // 8)]}"
            for _ in range(count)]  # fmt: skip


# ---- words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"Let $f(x)=\dfrac{1}{2}x^{2}$.", "LET f(x) = \\frac12 x^2"),
        (r"\left(10,\!000\right) + 5{,}000", "( 10000 )  +  5,000"),
        (r"\begin{align*}a&=b\\c&=d\end{align*}", "a = b, c = d"),
        (r"$x \le y$, $30^\circ$, $\lambda\cdot 2$", "x \u2264 y; 30\u00b0 \u03bb \u00d7 2"),
        ("**P\u00f3lya's** na\u00efve x\u00b2", "Polya's nai\u0308ve $x^2$"),
        (r"\text{Find } x_{1} \neq 2", "find x_1 \u2260 2"),
        ("\uff12\uff0b\U0001d465", "2+x"),
        (r"50\% of \$20", "50% of 20"),
    ],
)
def test_one_problem_in_two_dresses_has_the_same_words(one, other):
    assert normalise(one) == normalise(other) != []
    assert signature(one).tolist() == signature(other).tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f(3)", "f'(3)"),
        ("(2+3)*4", "2+(3*4)"),
        ("x^2", "x2"),
        ("3.5", "35"),
        ("n!", "n"),
        ("a < b", "a > b"),
        ("12 3", "1 23"),
        ("[0,1)", "(0,1]"),
        ("ab", "a b"),
        ("\u4e2d\u6587", "\u6587\u4e2d"),
        (r"\sin x", r"\cos x"),
    ],
)
def test_different_problems_have_different_words(one, other):
    assert normalise(one) != normalise(other)
    assert signature(one)[0] != signature(other)[0]


def test_words_of_every_kind():
    assert normalise("Janet's f''(x)=3.5. 1,234") == [
        "janet", "s", "f", "'", "'", "(", "x", ")", "=", "3.5", "1234",
    ]  # fmt: skip
    assert normalise("\u4e2d\u6587 2\u4e2a") == ["\u4e2d", "\u6587", "2", "\u4e2a"]
    for nothing in ("", " ", "?", "$$", "\\", ".", "'", "\ud800"):
        assert normalise(nothing) == []


def test_equal_words_and_equal_hashes_go_together():
    rng = random.Random(1)
    texts = [" ".join(draw_words(rng, rng.randint(0, 4), 16)) for _ in range(3000)]
    words = Counter(tuple(normalise(text)) for text in texts)
    hashes = {signature(text)[0]: tuple(normalise(text)) for text in texts}
    assert len(words) == len(hashes) == len(set(hashes.values())) and len(words) < len(texts)


# ---- benchmarks


@pytest.mark.parametrize("dress", [str, redress, instruct], ids=["verbatim", "redressed", "around"])
def test_every_planted_benchmark_question_is_caught(questions, index, dress):
    missed = []
    for name, id, question in questions:
        share, label = index.overlap(dress(question)) or (0.0, "")
        if share < OVERLAP:
            missed.append((name, id, share, label))
    assert missed == []


def test_clean_rows_are_not_caught(index):
    shares = [(index.overlap(text) or (0.0, ""))[0] for text in draw_clean(1000)]
    assert max(shares) < OVERLAP / 2


def test_no_benchmark_is_caught_by_the_others(questions):
    names = list(BENCHMARKS)
    for name in names:
        others = Index([q for q in questions if q[0] != name], N)
        mine = [question for other, _, question in questions if other == name]
        assert max((others.overlap(text) or (0.0, ""))[0] for text in mine) < OVERLAP


def overlap_by_force(problems, n: int, text: str) -> float:
    def grams(words, length):
        return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}

    best, words = 0.0, normalise(text)
    for _, _, question in problems:
        own = normalise(question)
        length = n if len(own) - n + 1 >= contamination.FEWEST else len(own)
        mine = grams(own, length)
        best = max(best, len(mine & grams(words, length)) / len(mine))
    return best


@pytest.mark.parametrize("n", [2, 5, 8])
def test_the_index_agrees_with_brute_force(n):
    rng = random.Random(n)
    problems = [("b", str(i), " ".join(draw_words(rng, rng.randint(5, 30)))) for i in range(150)]
    index = pickle.loads(pickle.dumps(Index(problems, n)))
    shares = []
    for _, _, question in problems:
        words = draw_words(rng, 10) + question.split() + draw_words(rng, 10)
        text = " ".join("other" if rng.random() < 0.1 else word for word in words)
        share, label = index.overlap(text) or (0.0, "")
        assert share == pytest.approx(overlap_by_force(problems, n, text))
        shares.append(share)
    assert len(set(shares)) > 20 and index.overlap("nothing of this") is None


def test_a_short_question_is_found_whole_or_not_at_all():
    index = Index([("math500", "1", "Compute $\\sin 45^\\circ$."), ("b", "2", TRAINS)], N)
    assert index.overlap("Please compute \\sin(45)") is None
    assert index.overlap("Now compute $\\sin 45^{\\circ}$, please") == (1.0, "math500/1")
    share, label = index.overlap(TRAINS.replace("station", "harbour"))
    assert 0.5 < share < 1 and label == "b/2"


def test_the_first_of_equal_questions_is_named():
    index = Index([("a", "1", TRAINS), ("b", "1", TRAINS)], N)
    assert index.overlap(TRAINS) == (1.0, "a/1")


def test_an_index_is_a_few_arrays(index):
    held = [*vars(index).values(), *(array for pair in index.sieves.values() for array in pair)]
    arrays = sum(value.nbytes for value in held if isinstance(value, np.ndarray))
    assert arrays < 60 * len(index.keys)
    assert len(pickle.dumps(index)) < arrays + 100 * len(index.labels)


def test_questions_without_words_and_no_questions_at_all():
    with pytest.raises(BenchmarkError, match=r"aime24/7: no words in the question '\?\?'"):
        Index([("aime24", "7", "??")], N)
    with pytest.raises(BenchmarkError, match="no benchmark questions"):
        Index([], N)


# ---- repeated texts


def find(texts: list[str]) -> dict[int, tuple[int, str]]:
    return duplicates(signature(text) for text in texts)


def change(rng: random.Random, text: str, count: int) -> str:
    """Other words, the numbers as they were."""
    words = text.split()
    plain = [i for i, word in enumerate(words) if word.isalpha()]
    for i in rng.sample(plain, count):
        words[i] = f"other{'abcdefgh'[rng.randrange(8)]}"
    return " ".join(words)


def test_planted_repeats_are_caught_and_the_first_stays():
    rng = random.Random(0)
    texts = draw_clean(1000)
    assert find(texts) == {}
    changed = change(rng, TRAINS, 2)
    planted = [TRAINS, redress(TRAINS), changed, TRAINS, change(rng, TRAINS, 1), changed]
    for place, text in zip((10, 300, 301, 700, 900, 901), planted, strict=True):
        texts.insert(place, text)
    kinds = {300: "exact", 301: "near", 700: "exact", 900: "near", 901: "near"}
    assert find(texts) == {row: (10, kind) for row, kind in kinds.items()}


def test_other_numbers_or_another_answer_are_another_problem():
    assert find([TRAINS, TRAINS.replace("120", "130")]) == {}
    swapped = TRAINS.replace("120", "@").replace("40", "120").replace("@", "40")
    assert find([TRAINS, swapped]) == {}
    late, early = change(random.Random(0), TRAINS, 1), "12:30"
    assert duplicates([signature(TRAINS, early), signature(late, "13:30")]) == {}
    assert duplicates([signature(TRAINS, early), signature(late, "12 : 30")]) == {1: (0, "near")}


def test_short_texts_repeat_exactly_or_not_at_all():
    cube = "Write a function to find the surface area of a cube."
    assert find([cube, cube.replace("cube", "cone"), "x", "y", "X", "", "?", cube.upper()]) == {
        4: (2, "exact"),
        6: (5, "exact"),
        7: (0, "exact"),
    }
    assert find([]) == {}


def shingles(text: str) -> set:
    words = normalise(text)
    return set(zip(words, words[1:], strict=False))


def jaccard(one: set, other: set) -> float:
    return len(one & other) / len(one | other)


def draw_families(rng: random.Random, count: int) -> list[str]:
    """Texts of 30 to 80 words, each with three that have more and more words changed."""
    texts = []
    for _ in range(count):
        words = [f"w{'abcdefgh'[rng.randrange(8)]}{'ijklm'[rng.randrange(5)]}"
                 for _ in range(rng.randint(30, 80))]  # fmt: skip
        own = " ".join(words)
        texts += [own, *(change(rng, own, rng.randint(1, len(words) // 5)) for _ in range(3))]
    rng.shuffle(texts)
    return texts


def test_near_repeats_agree_with_brute_force():
    texts = draw_families(random.Random(2), 100)
    found = find(texts)
    sets = [shingles(text) for text in texts]
    near: dict[int, float] = {}  # row -> the largest share with an earlier row
    for later, own in enumerate(sets):
        near[later] = max((jaccard(own, sets[j]) for j in range(later)), default=0.0)
    # What is above or below the threshold by three sigma of the estimate is decided rightly.
    sure = [row for row, share in near.items() if share >= 0.82]
    far = [row for row, share in near.items() if share < 0.55]
    assert len(sure) >= 40 and len(far) >= 100
    assert sum(row in found for row in sure) >= 0.97 * len(sure)
    assert sum(row in found for row in far) <= 0.01 * len(far)
    for row, (first, _) in found.items():
        assert first < row and first not in found
        assert jaccard(sets[row], sets[first]) > 0.55


def test_the_bands_lose_no_pair(monkeypatch):
    """Bands and sorting against the comparison of all signatures with each other."""
    texts = draw_families(random.Random(3), 100)
    rows = np.array([signature(text) for text in texts])
    later, earlier = np.tril_indices(len(rows), -1)
    alike = contamination._are_near(rows, earlier, later, 0.7) & (
        rows[later, 1] == rows[earlier, 1]
    )
    every = set((later[alike] << 32 | earlier[alike]).tolist())
    chosen = np.arange(len(rows))
    banded = set(contamination._similar_pairs(rows, chosen, 0.7).tolist())
    assert len(every) > 100 and banded <= every and len(banded) >= 0.99 * len(every)


def test_a_crowd_of_near_repeats_leaves_one():
    rng = random.Random(4)
    long = " ".join(draw_words(rng, 100))
    assert set(find([change(rng, long, 2) for _ in range(300)]).values()) == {(0, "near")}


def test_memory_is_flat():
    def peak(count: int) -> float:
        """The most bytes that `duplicates` holds at a time, a row."""
        rng = np.random.default_rng(0)
        stream = (rng.integers(0, 2**63, 18, dtype=np.uint64) for _ in range(count))
        tracemalloc.start()
        duplicates(stream)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held / count

    assert signature(TRAINS * 100).nbytes == 144
    assert peak(30_000) <= 1.2 * peak(3_000) and peak(30_000) < 400
