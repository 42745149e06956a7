"""Keywords removed by a model, as in the paper's code: thoughts are rewritten without reflection.

Two files under FOLDER/judge, both append-only and resumed after a kill: the thoughts to rewrite, and
what the judge made of each. The wording is ours; the paper's prompt is not used.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep import asking
from data_prep.conditions import Item, Read, read_item
from data_prep.mixture import Asked, result_settings, sampling
from longcot import chat, client, keywords, ledger, perturb, rows
from longcot.damages import Rewrite

MAX_ADDED = 0.05  # words the rewrite may have beyond the thought's, as a share
MIN_KEPT = 0.1  # of the thought's words
SAMPLING = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 16384, "seed": 0}  # as the paper's code

_RULES = """\
You edit notes in which somebody thinks a problem through. Take out every passage of reflection:
doubts, second thoughts, checks of what was done, going back, tries of another way. Where such a
passage finds a mistake or changes the course, what it overturns goes with it, so that the notes read
as if their writer had gone straight to the result.

- Everything else is copied word for word, in its order: numbers, formulas, code, wrong steps too.
- Write no new sentence and no joining phrase, not even where something was taken out.
- Keep the blank lines between what is left.
- Do not solve the problem and do not comment.

Write the edited notes between <edited> and </edited>, and nothing after that."""
_EXAMPLE = (
    """\
Half of 18 is 9, so each side is 9.

Wait, is that right? 9 + 9 = 18, yes.

The area is 9 * 9 = 72. Hmm, no, that is wrong. 9 * 9 = 81.

So the answer is 81.""",
    """\
<edited>
Half of 18 is 9, so each side is 9.

9 * 9 = 81.

So the answer is 81.
</edited>""",
)
_EDITED = re.compile(r"<edited>((?:(?!</?edited>).)*)</edited>\s*\Z", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")
_TAGS = tuple(filter(None, (tag for tags in chat.FORMATS.values() for tag in vars(tags).values())))


def edit_messages(thought: str) -> list[dict]:
    """The chat in which a model takes the reflection out of one thought."""
    return [
        {"role": "system", "content": _RULES},
        {"role": "user", "content": _EXAMPLE[0]},
        {"role": "assistant", "content": _EXAMPLE[1]},
        {"role": "user", "content": thought.strip()},
    ]


def read_edit(thought: str, answer: str) -> tuple[str, str | None]:
    """(edited thought, why it cannot be used or None): layout, tags, words added, nearly nothing left,
    as many reflection words as before."""
    found = _EDITED.search(chat.split(answer).solution)
    if found is None:
        return "", "rewrite: not between its tags"
    text = found[1].strip()
    before, after = Counter(_WORD.findall(thought.lower())), Counter(_WORD.findall(text.lower()))
    if any(tag in text for tag in _TAGS):
        return "", "rewrite: a reply's own tags"
    if (after - before).total() > MAX_ADDED * before.total():
        return "", "rewrite: words are added"
    if after.total() < MIN_KEPT * before.total():
        return "", "rewrite: hardly a word is left"
    if keywords.count(text) >= keywords.count(thought):
        return "", "rewrite: no reflection word is gone"
    return text, None


def fingerprint() -> str:
    """Hash of the wording: thoughts edited under other words are not mixed with these."""
    return hashlib.sha256(repr(edit_messages("t")).encode()).hexdigest()[:16]


def name_call(read: Read) -> str:
    """A key of the ledger; rows of one id and different replies have different ones."""
    return f"{read.key}/{perturb.hash_key(read.reply):016x}"


@dataclass(frozen=True)
class Edits:
    """What the judge made of the thoughts; memory holds where they lie."""

    kept: ledger.Kept
    faults: dict[str, str]

    def find(self, read: Read) -> Rewrite | None:
        """The edit of a row's thought; None where none was asked for."""
        key = name_call(read)
        if key in self.kept:
            return Rewrite(self.kept[key]["thought"], None)
        return Rewrite("", self.faults[key]) if key in self.faults else None


def ask_judge(
    items: Iterable[Item],
    name: str,
    variants: Sequence[perturb.Variant],
    judge: Asked,
    folder: Path,
    source: str,
    again: bool,
) -> "Edits":
    """Have the judge edit the thought of every row that one of the variants draws.

    `source` is the hash of the rows; a folder begun with other rows, words or sampling is refused.
    """
    settings = {"source": source, "prompt": fingerprint()}
    asked = folder / "1_thoughts.jsonl"
    asking.append_missing(asked, settings, _drawn(items, name, variants))
    thoughts = ledger.Kept(asked)
    path = folder / "2_edited.jsonl"
    settings |= {"judge": result_settings(judge), "the stage before": ledger.begun(asked)}

    def call(key: str) -> client.Call:
        return client.Call(key, tuple(edit_messages(thoughts[key]["thought"])), sampling(judge))

    def read(answer: client.Answer) -> dict:
        text, drop = "", asking.fault(answer)
        if drop is None:
            text, drop = read_edit(thoughts[answer.key]["thought"], answer.text)
        return {"key": answer.key, "thought": text, "drop": drop}

    asking.ask_missing(path, settings, list(thoughts), call, judge, read, again)
    faults = {row["key"]: row["drop"] for _, row in rows.read_jsonl(path) if row["drop"]}
    return Edits(ledger.Kept(path), faults)


def _drawn(items: Iterable[Item], name: str, variants: Sequence[perturb.Variant]) -> Iterator[dict]:
    for item in items:
        read = read_item(item, name)
        if read.fault or not any(perturb.is_rewritten(read.key, v) for v in variants):
            continue
        thought = chat.split(read.reply).thought
        if thought and keywords.count(thought):
            yield {"key": name_call(read), "thought": thought, "drop": None}
