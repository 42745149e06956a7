"""Questions that repeat a benchmark's, or one another.

All comparison is of words after `normalise`, so that a problem in other dress is the same problem.
`Index` finds benchmark questions by the n-grams they share with a text; `signature` and
`duplicates` find repeated texts, exact and near, in 144 bytes a row. Hashes have 64 bits: among
170,000 texts two different ones share one with a chance below 1e-8.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np

from longcot.errors import BenchmarkError

# ---- words

_SYMBOLS = {
    code: f" {unicodedata.name(chr(code)).split()[-1].lower().replace('lamda', 'lambda')} "
    for code in range(0x3B1, 0x3CA)  # Greek letters by their names
} | dict.fromkeys(range(0x300, 0x370)) | {  # accents go
    0x2212: "-", 0x2013: "-", 0xD7: "*", 0xB7: "*", 0x22C5: "*", 0xF7: "/", 0x2044: "/",
    0x2264: "<=", 0x2265: ">=", 0x2260: "!=", 0x221A: " sqrt ", 0xB0: "^ circ ", 0x2019: "'",
    0x2032: "'", 0x2220: " angle ", 0x25B3: " triangle ", 0x221E: " infty ", 0x2208: " in ",
}  # fmt: skip
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
_NO_LETTERS = re.compile(r"[^\w\x00-\x7f]+")
# The comma first, the digit before it after: the search for a plain character is the fast one.
_THOUSANDS = re.compile(r",(?<=[0-9],)(?=[0-9]{3}(?![0-9]))")
_SHORT_FRACTION = re.compile(r"(\\[dtc]?frac ?[0-9])(?=[0-9])")
_COMMAND = re.compile(r"\\(?:(?:begin|end) ?\{[a-z]+\*?\}|[a-z]+|[^\w\s]|\s)")
_ALIKE = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "le": "<=", "leq": "<=", "leqslant": "<=",
    "ge": ">=", "geq": ">=", "geqslant": ">=", "ne": "!=", "neq": "!=", "lt": "<", "gt": ">",
    "times": "*", "cdot": "*", "div": "/", "vert": "|", "lvert": "|", "rvert": "|", "mid": "|",
    "degree": "circ", "varepsilon": "epsilon", "varphi": "phi", "%": "%", "|": "|",
} | dict.fromkeys(
    ["left", "right", "middle", "big", "bigg", "bigl", "bigr", "displaystyle", "quad", "qquad",
     "text", "textbf", "textit", "textrm", "mathrm", "mathbf", "mathit", "mbox", "operatorname",
     "limits", "newline", "dots", "ldots", "cdots", "dotsc"], "",
)  # fmt: skip
_NOTHING, _LETTER, _DIGIT, _SIGN = range(4)  # a sign is a word by itself
_CLASSES = np.full(129, _LETTER, np.uint8)
_CLASSES[:128] = [
    _LETTER if c.isalpha() else _DIGIT if c.isdigit() else _SIGN if c in "-+*/=<>!^|%()[]" else 0
    for c in map(chr, range(128))
]


def normalise(text: str) -> list[str]:
    """The words of a text: lower case, one form of each sign, without LaTeX's dressing (`$`,
    braces, spacing, `\\left`) and punctuation. Numbers, letters, operators and brackets stay."""
    _, _, starts, ends = _cut(text := _undress(text))
    return [text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _undress(text: str) -> str:
    text = _FOREIGN.sub(_fold, text).lower().replace("**", " ")  # bold
    text = _THOUSANDS.sub("", text.replace("{,}", ",").replace(",\\!", ","))
    if "\\" in text:
        text = _COMMAND.sub(_translate, _SHORT_FRACTION.sub(r"\1 ", text))
    return text


def _fold(run: re.Match) -> str:
    """Characters beyond ASCII in the form that LaTeX or a keyboard gives them."""
    text = _RAISED.sub(lambda raised: "^" + raised[0], run[0]).lower().translate(_SYMBOLS)
    text = unicodedata.normalize("NFKD", text).translate(_SYMBOLS)
    return _NO_LETTERS.sub(" ", unicodedata.normalize("NFKC", text))


def _translate(command: re.Match) -> str:
    name = command[0][1:]
    return f" {_ALIKE.get(name, name if name.isalpha() else '')} "


def _cut(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Characters, their classes, and where each word starts and ends."""
    if text.isascii():
        codes = np.frombuffer(text.encode(), np.uint8)
        classes = _CLASSES[codes]
    else:
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        classes = _CLASSES[np.minimum(codes, 128)]
        classes[(codes >= 0x3040) & (codes <= 0x9FFF)] = _SIGN  # Kana and Han have no spaces
    if "." in text:  # 3.5
        points = np.flatnonzero(codes[1:-1] == ord(".")) + 1
        digits = classes == _DIGIT
        classes[points[digits[points - 1] & digits[points + 1]]] = _DIGIT
    if "'(" in text:  # f'(x)
        primes = np.flatnonzero(codes[:-1] == ord("'"))
        following = codes[primes + 1]
        classes[primes[(following == ord("(")) | (following == ord("'"))]] = _SIGN
    words = classes > _NOTHING
    begins = words.copy()
    begins[1:] &= (classes[1:] != classes[:-1]) | (classes[1:] == _SIGN)
    starts = np.flatnonzero(begins)
    breaks = begins | ~words
    ends = np.flatnonzero(breaks[1:] & words[:-1]) + 1
    return codes, classes, starts, np.append(ends, len(codes))[: len(starts)]


# ---- hashes

_ODD = 0x9E3779B97F4A7C15


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread every bit of uint64 values over all of them (the finaliser of SplitMix64)."""
    values = values + np.uint64(_ODD)
    values = (values ^ (values >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> 27)) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> 31)


_CHARACTERS = _mix(np.arange(128, dtype=np.uint64))
_PLACES = _mix(np.arange(1000, 1256, dtype=np.uint64)) | np.uint64(1)  # of letters in a word


def _hash_words(text: str) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each word of a text, and which words are numbers."""
    codes, classes, starts, _ = _cut(_undress(text))
    if not len(starts):
        return np.zeros(0, np.uint64), np.zeros(0, bool)
    values = _CHARACTERS[codes] if codes.itemsize == 1 else _mix(codes.astype(np.uint64))
    values[classes == _NOTHING] = 0
    lengths = np.diff(starts, append=len(codes))
    places = np.arange(starts[0], len(codes)) - np.repeat(starts, lengths)
    values = values[starts[0] :] * _PLACES[np.minimum(places, 255)]
    return _mix(np.add.reduceat(values, starts - starts[0])), classes[starts] == _DIGIT


def _hash_grams(words: np.ndarray, lengths: Iterable[int]) -> Iterator[np.ndarray]:
    """For each of the rising `lengths`, a hash of each run of so many words."""
    grams, reached = words, 1
    for length in lengths:
        while reached < length:
            grams = grams[:-1] * np.uint64(_ODD) + words[reached:]
            reached += 1
        yield grams


# ---- benchmarks

FEWEST = 5  # n-grams; a question with fewer is found whole or not at all


class Index:
    """The n-grams of benchmark questions in sorted arrays, quick to send to another process."""

    def __init__(self, problems: Iterable[tuple[str, str, str]], n: int) -> None:
        """`problems` are (benchmark, id, question). Raises BenchmarkError when there is none, or
        when a question has no words."""
        self.labels: list[str] = []
        grams: list[np.ndarray] = []
        by_length: dict[int, list[np.ndarray]] = {}
        for benchmark, id, question in problems:
            self.labels.append(f"{benchmark}/{id}")
            words, _ = _hash_words(question)
            if not len(words):
                raise BenchmarkError(
                    f"{self.labels[-1]}: no words in the question {question!r:.60}"
                )
            length = n if len(words) - n + 1 >= FEWEST else len(words)
            grams.append(np.unique(next(_hash_grams(words, [length]))))
            by_length.setdefault(length, []).append(grams[-1])
        if not grams:
            raise BenchmarkError("no benchmark questions to compare with; name at least one")
        self.totals = np.array([len(some) for some in grams])
        order = np.argsort(every := np.concatenate(grams), kind="stable")
        self.owners = np.repeat(np.arange(len(grams)), self.totals)[order].astype(np.int32)
        self.keys, begins = np.unique(every[order], return_index=True)
        self.begins = np.append(begins, len(every))
        self.sieves = {length: _sieve(by_length[length]) for length in sorted(by_length)}

    def overlap(self, text: str) -> tuple[float, str] | None:
        """The largest share of a question's n-grams that occur in `text`, and "benchmark/id" of
        the first question with it; None when nothing is shared. Linear in the words of `text`."""
        words, _ = _hash_words(text)
        sieved = zip(_hash_grams(words, self.sieves), self.sieves.values(), strict=True)
        grams = np.concatenate([some[sieve[some >> shift]] for some, (sieve, shift) in sieved])
        places = np.searchsorted(self.keys, grams)
        places[places == len(self.keys)] = 0
        found = np.unique(places[self.keys[places] == grams])
        if not len(found):
            return None
        spans = zip(self.begins[found], self.begins[found + 1], strict=True)
        owners = np.concatenate([self.owners[begin:end] for begin, end in spans])
        questions, counts = np.unique(owners, return_counts=True)
        shares = counts / self.totals[questions]
        best = int(np.argmax(shares))
        return float(shares[best]), self.labels[questions[best]]


def _sieve(grams: list[np.ndarray]) -> tuple[np.ndarray, np.uint64]:
    """Which top bits occur, and the shift that leaves them: a small table that turns most n-grams
    of a text away at once."""
    every = np.concatenate(grams)
    bits = max(12, (16 * len(every)).bit_length())
    sieve, shift = np.zeros(1 << bits, bool), np.uint64(64 - bits)
    sieve[every >> shift] = True
    return sieve, shift


# ---- repeated texts

WORDS = 20  # in a shorter question one other word is another question: only exact repeats count
MINIMA = 128  # of 8 bits: the estimate of a shared part of 0.7 is off by 0.04 (one sigma)
# Bands of 4 minima: of the pairs that share 0.7, all but one in 5,000 meet in one of 32 bands.
NEIGHBOURS = 16  # rows of one band that a row is compared with, besides the first of them
PAIRS = 1 << 14  # compared at a time
_FACTORS = _mix(np.arange(2000, 2000 + MINIMA, dtype=np.uint64)) | np.uint64(1)


def signature(text: str, answer: str = "") -> np.ndarray:
    """18 uint64 that stand for a text in `duplicates`: a hash of its words, one of its numbers in
    their order and of the answer, and 128 minima over its pairs of words (MinHash, Broder 1997;
    8 bits of each, after Li and Konig 2010)."""
    words, numbers = _hash_words(text)
    key = words[numbers] if len(words) >= WORDS else words
    pairs = next(_hash_grams(words, [min(2, max(1, len(words)))]))
    minima = np.full(MINIMA, np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(pairs), 512):  # a table that stays in the processor's cache
        table = pairs[start : start + 512, None] * _FACTORS
        np.minimum(minima, table.min(axis=0), out=minima)
    packed = (_mix(minima) >> np.uint64(56)).astype(np.uint8).view(np.uint64)
    key = np.concatenate([_hash_run(key), _hash_words(answer)[0]])
    return np.concatenate([_hash_run(words), _hash_run(key), packed])


def _hash_run(words: np.ndarray) -> np.ndarray:
    powers = np.cumprod(np.full(len(words), _ODD, np.uint64))
    return _mix((words * powers).sum(dtype=np.uint64, keepdims=True))


def duplicates(
    signatures: Iterable[np.ndarray], threshold: float = 0.7
) -> dict[int, tuple[int, str]]:
    """Row number -> (number of the earlier row it repeats, "exact" or "near"): the rows to drop.

    Near: `threshold` of the pairs of words of both are shared, as estimated, and the numbers, their
    order and the answers are the same. The first of a kind stays. Holds 144 bytes a row (a
    datasketch index holds Python objects, some kilobytes a row).
    """
    held = bytearray()
    for one in signatures:
        held += one.tobytes()
    rows = np.frombuffer(held, np.uint64).reshape(-1, 2 + MINIMA // 8)
    _, firsts, inverse = np.unique(rows[:, 0], return_index=True, return_inverse=True)
    same = firsts[inverse]
    near: dict[int, int] = {}
    for pair in _similar_pairs(rows, np.sort(firsts), threshold).tolist():
        later, earlier = pair >> 32, pair & 0xFFFFFFFF
        if later not in near and earlier not in near:
            near[later] = earlier
    found = {row: (first, "near") for row, first in near.items()}
    for row in np.flatnonzero(same != np.arange(len(rows))).tolist():
        found[row] = found.get(int(same[row]), (int(same[row]), "exact"))
    return dict(sorted(found.items()))


def _similar_pairs(rows: np.ndarray, chosen: np.ndarray, threshold: float) -> np.ndarray:
    """Near duplicates among the `chosen` rows, as later row << 32 | earlier row, rising."""
    bands = rows[:, 2:].view(np.uint32)
    pairs = np.zeros(0, np.int64)
    for band in range(bands.shape[1]):
        # The numbers are in the key: rows with others never meet, and a template makes no crowd.
        keys = _mix(rows[chosen, 1] + bands[chosen, band] * np.uint64(_ODD))
        order = np.argsort(keys, kind="stable")
        found = [pairs]
        for earlier, later in _meetings(keys[order]):
            for start in range(0, len(later), PAIRS):
                one = chosen[order[earlier[start : start + PAIRS]]]
                other = chosen[order[later[start : start + PAIRS]]]
                alike = _are_near(rows, one, other, threshold)
                found.append(other[alike] << 32 | one[alike])
        pairs = np.unique(np.concatenate(found))
    return pairs


def _meetings(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of equal keys in sorted `keys`, as (earlier, later): each with the NEIGHBOURS before
    it and with the first of its run."""
    earlier = np.arange(len(keys))
    for step in range(1, NEIGHBOURS + 1):
        earlier = earlier[earlier + step < len(keys)]
        earlier = earlier[keys[earlier] == keys[earlier + step]]
        yield earlier, earlier + step
    later = earlier + NEIGHBOURS
    yield np.searchsorted(keys, keys[later]), later


def _are_near(rows: np.ndarray, one: np.ndarray, other: np.ndarray, threshold: float) -> np.ndarray:
    minima = rows[:, 2:].view(np.uint8)
    agree = (minima[one] == minima[other]).sum(axis=1)
    chance = 1 / 256  # that two different minima agree in 8 bits
    return agree >= MINIMA * (threshold + (1 - threshold) * chance)
