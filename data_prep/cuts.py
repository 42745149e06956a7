"""Steps cut by a model instead of by rules, as the paper had Llama-3.3-70B-Instruct cut them.

Two files under FOLDER/judge, both append-only and resumed after a kill: the thoughts to cut, and the
offsets where the judge has their steps begin. A reply that cannot be used leaves the thought to the
rules, and is counted. Steps that `insert` takes from other traces are cut by rules.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path

from data_prep import asking
from data_prep.conditions import Item, Read, read_item
from data_prep.mixture import Asked, result_settings, sampling
from data_prep.reflections import name_call
from longcot import chat, client, ledger, rows, segment

SAMPLING = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 4096, "seed": 0}


@dataclass(frozen=True)
class Cuts:
    """Where the judge has steps begin; memory holds the place of each in the file."""

    kept: ledger.Kept
    fallbacks: Counter[str]  # thoughts left to the rules, by reason

    def find(self, read: Read) -> tuple[int, ...] | None:
        """Offsets in a row's thought; None where the rules cut."""
        key = name_call(read)
        return tuple(self.kept[key]["starts"]) if key in self.kept else None


def ask_cuts(
    items: Iterable[Item], name: str, judge: Asked, folder: Path, source: str, again: bool
) -> Cuts:
    """Have the judge cut every thought of more than one piece.

    `source` is the hash of the rows; a folder begun with other rows, words or sampling is refused.
    """
    settings = {"source": source, "prompt": segment.judge_fingerprint()}
    uncut = folder / "1_uncut.jsonl"
    asking.append_missing(uncut, settings, _thoughts(items, name))
    thoughts = ledger.Kept(uncut)
    path = folder / "2_cut.jsonl"
    settings |= {"judge": result_settings(judge), "the stage before": ledger.begun(uncut)}

    def call(key: str) -> client.Call:
        row = thoughts[key]
        return segment.judge_call(key, row["question"], row["thought"], sampling(judge))

    def read(answer: client.Answer) -> dict:
        judged = segment.read_judge(thoughts[answer.key]["thought"], answer)
        return {"key": answer.key, "starts": starts_of(judged.steps), "drop": judged.fallback}

    asking.ask_missing(path, settings, list(thoughts), call, judge, read, again)
    fallbacks = Counter(row["drop"] for _, row in rows.read_jsonl(path) if row["drop"])
    return Cuts(ledger.Kept(path), fallbacks)


def starts_of(steps: segment.Steps) -> list[int]:
    """Offsets at which the steps begin, in the thought they join to."""
    pieces = chain.from_iterable(zip(steps.gaps, steps.texts, strict=False))
    return list(accumulate(map(len, pieces)))[::2]


def _thoughts(items: Iterable[Item], name: str) -> Iterator[dict]:
    for item in items:
        read = read_item(item, name)
        thought = chat.split(read.reply).thought if read.fault is None else None
        if thought and len(segment.candidates(thought)) > 1:
            question = "\n\n".join(text for role, text in read.trace.turns if role == "user")
            yield {"key": name_call(read), "question": question, "thought": thought, "drop": None}
