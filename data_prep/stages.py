"""The stages of a data recipe in reading order; `distill.make` calls them one after another.

Every stage fills one file with one line per row: `key`, what the stage found, and `drop`, null or the
reason why the row fell. A stage killed in the middle goes on where it was.
"""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep import asking, curate, prompts, sources
from data_prep.mixture import Mixture, result_settings, sampling
from longcot import chat, client, ledger, rows
from longcot.errors import RowError
from longcot.workers import map_rows

# ---- 1 questions


def collect_questions(mixture: Mixture, path: Path) -> None:
    """Every source's rows in order, one line each; what is no question falls with the reason."""
    with ledger.opened(path, settings_of(mixture)) as stage:
        recorded = sum(1 for _ in stage)
        fresh = islice(read_sources(mixture), recorded, None)
        for row in tqdm(fresh, path.stem, unit=" rows"):
            stage.append(row)


def read_sources(mixture: Mixture) -> Iterator[dict]:
    for name, source in mixture.sources.items():
        for question, where, reason in sources.read_questions(name, source):
            if question is None:
                yield {"key": f"{name}/{where}", "section": name, "drop": reason}
            else:
                id = question["id"].removeprefix(f"{name}-")  # ids of files are theirs alone
                yield {**question, "key": f"{name}/{id}", "section": name, "drop": None}


def settings_of(mixture: Mixture, *sections: str, after: Path | None = None) -> dict[str, Any]:
    """What a stage's rows depend on: the sources, these sections, the files read, the prompts' words,
    and the identity of the stage file before it."""
    settings: dict[str, Any] = {
        name: {k: v for k, v in vars(source).items() if k not in ("count", "licence")}
        | {"hash": rows.hash_source(source.path, source.revision)}
        for name, source in mixture.sources.items()
    }
    for section in sections:
        found = getattr(mixture, section)
        settings[section] = found and result_settings(found)
    if "decontaminate" in sections:
        asked = (name.rpartition("=")[2] for name in mixture.decontaminate.benchmarks or ())
        settings["benchmark_files"] = [rows.hash_file(f) for f in asked if rows.is_local(f)]
    if "teacher" in sections:
        settings["prompts"] = prompts.fingerprint()
    if after:
        settings["the stage before"] = ledger.begun(after)
    return settings


# ---- 2 decontaminate


def drop_known(mixture: Mixture, questions: ledger.Kept, path: Path, spread: dict) -> None:
    """Let questions fall that a benchmark asks or an earlier one asked. Cheap, so made at once."""
    with ledger.opened(path, settings_of(mixture, "decontaminate", after=questions.path)) as stage:
        if any(True for _ in stage):
            return
        fresh = (questions[key] for key in tqdm(questions, path.stem, unit=" rows"))
        pairs = ((row["problem"], row["gold"] or "") for row in fresh)
        found = curate.find_known(pairs, mixture.decontaminate, **spread)
        rows.write_jsonl(path, ({"key": k, **f} for k, f in zip(questions, found, strict=True)))


# ---- 3 label


def label(
    mixture: Mixture, questions: ledger.Kept, known: ledger.Kept, path: Path, again: bool
) -> None:
    """Difficulty 1 to 10 by a judge model, for the sources that ask for it; the others pass."""
    judge = mixture.difficulty
    settings = settings_of(mixture, "decontaminate", "difficulty", after=known.path)
    asked = [key for key in known if mixture.sources[questions[key]["section"]].label]
    passing = sorted(set(known) - set(asked))
    asking.append_missing(path, settings, ({"key": key, "drop": None} for key in passing))
    if judge is None:
        return

    def call(key: str) -> client.Call:
        messages = prompts.difficulty_messages(questions[key]["problem"])
        return client.Call(key, tuple(messages), sampling(judge))

    def read(answer: client.Answer) -> dict:
        source = mixture.sources[questions[answer.key]["section"]]
        level = prompts.read_difficulty(answer.text)
        drop = asking.fault(answer) or sources.difficulty_fault(level, source)
        return {"key": answer.key, "difficulty": level, "drop": drop}

    asking.ask_missing(path, settings, asked, call, judge, read, again)


# ---- 4 sample


def sample(
    mixture: Mixture, questions: ledger.Kept, labelled: ledger.Kept, path: Path, again: bool
) -> None:
    """The teacher's n answers to every question, as they come."""
    teacher = mixture.teacher
    system = [{"role": "system", "content": teacher.system}] if teacher.system else []

    def call(key: str) -> client.Call:
        question, _, number = key.rpartition("#")
        user = {"role": "user", "content": user_turn(mixture, questions[question])}
        seeded = sampling(teacher) | {"seed": teacher.seed + int(number)}
        return client.Call(key, (*system, user), seeded)

    def read(answer: client.Answer) -> dict:
        return {
            "key": answer.key,
            "response": answer.text,
            "reasoning": answer.reasoning or None,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "tokens": answer.tokens,
            "retries": answer.retries,
            "drop": asking.fault(answer),
        }

    sections = ("decontaminate", "difficulty", "teacher")
    settings = settings_of(mixture, *sections, after=labelled.path)
    chosen = [key for key in questions if key in labelled]
    keys = [f"{key}#{number}" for key in chosen for number in range(teacher.n)]
    asking.ask_missing(path, settings, keys, call, teacher, read, again)


def user_turn(mixture: Mixture, question: dict) -> str:
    """What the teacher is asked, and what the student will be trained on."""
    if mixture.teacher.instruction:
        return prompts.teacher_prompt(question)
    return "\n\n".join(filter(None, (question["problem"], question["starter_code"])))


# ---- 5 rewrite


def rewrite(mixture: Mixture, samples: ledger.Kept, path: Path, again: bool) -> None:
    """Replies in two parts: laid out by a rewriting model, or taken from the teacher as they are."""
    rewriter = mixture.rewrite
    sections = ("decontaminate", "difficulty", "teacher", "rewrite")
    settings = settings_of(mixture, *sections, after=samples.path)
    if rewriter is None:
        written = (as_written(key, samples[key]) for key in samples)
        asking.append_missing(path, settings, written)
        return

    def call(key: str) -> client.Call:
        messages = prompts.rewrite_messages(whole_text(samples[key]))
        return client.Call(key, tuple(messages), sampling(rewriter))

    def read(answer: client.Answer) -> dict:
        drop = asking.fault(answer)
        drop = drop or prompts.check_rewrite(whole_text(samples[answer.key]), answer.text)
        return {"key": answer.key, "reply": answer.text, "drop": drop}

    asking.ask_missing(path, settings, list(samples), call, rewriter, read, again)


def whole_text(row: dict) -> str:
    """All that the teacher wrote, a thought in a field of its own first."""
    return "\n\n".join(filter(None, (row["reasoning"], row["response"])))


def as_written(key: str, row: dict) -> dict:
    """The teacher's reply in its own tags; a thought in a field of its own is put into <think>."""
    reply, thought = row["response"], row["reasoning"]
    format = chat.told_format(reply)
    if thought and format != "plain":
        return {"key": key, "reply": None, "drop": "a thought in tags and in a field of its own"}
    format = "think" if thought else format
    trace = rows.Trace(key, "", None, (("user", ""), ("assistant", reply)), thought)
    drop = chat.fault(trace, "think" if format == "plain" else format)
    return {
        "key": key,
        "reply": None if drop else chat.reply_text(reply, thought, format),
        "drop": drop,
    }


# ---- 6 reject


def reject(
    mixture: Mixture, questions: ledger.Kept, replies: ledger.Kept, path: Path, spread: dict
) -> None:
    """Judge every reply as evaluation does; what is not right falls, with the verdict's reason."""
    sections = ("decontaminate", "difficulty", "teacher", "rewrite", "reject")
    with ledger.opened(path, settings_of(mixture, *sections, after=replies.path)) as stage:
        done = {row["key"] for row in stage}
        todo = [key for key in replies if key not in done]
        asked = (questions[key.rpartition("#")[0]] for key in todo)
        pairs = ({**row, "reply": replies[k]["reply"]} for k, row in zip(todo, asked, strict=True))
        verdicts = map_rows(curate.judge_rows, pairs, **spread)
        for key, verdict in zip(tqdm(todo, path.stem, unit=" rows"), verdicts, strict=True):
            if verdict["drop"] == "unjudged" and mixture.reject.unjudged == "keep":
                verdict = {**verdict, "drop": None}
            stage.append({"key": key, **verdict})


# ---- 7 mix


def mix(
    mixture: Mixture,
    questions: ledger.Kept,
    replies: ledger.Kept,
    judged: ledger.Kept,
    counts: dict[str, int | None],
    path: Path,
) -> tuple[Counter, dict]:
    """Write rows that were judged so, in the questions' order; gives rows by source and a tally.

    `counts` says how many of a source (seeded choice). Raises RowError when it has fewer left.
    """
    chosen: dict[str, list[str]] = {name: [] for name in mixture.sources}
    for question in questions:
        answers = [k for n in range(mixture.teacher.n) if (k := f"{question}#{n}") in judged]
        chosen[questions[question]["section"]] += answers[: mixture.mix.per_question]
    enough = sum(map(len, chosen.values()))
    for name, keys in chosen.items():
        count = counts.get(name)
        if count is not None and len(keys) < count:
            raise RowError(
                f"{path}: source {name} has {len(keys)} rows left, its count is {count}; lower the "
                "count or raise teacher.n (the finished stages are kept)"
            )
        if count is not None:
            draw = random.Random(f"{mixture.mix.seed}/{name}")
            chosen[name] = [keys[place] for place in sorted(draw.sample(range(len(keys)), count))]
    keys = [key for name in chosen for key in chosen[name]]
    rows.write_jsonl(path, (training_row(mixture, key, questions, replies) for key in keys))
    falls = {"above per_question": len(judged) - enough, "above count": enough - len(keys)}
    tally = {
        "stage": "7_mix",
        "rows_in": len(judged),
        "rows_out": len(keys),
        "dropped": {reason: fallen for reason, fallen in falls.items() if fallen},
    }
    return Counter({name: len(keys) for name, keys in chosen.items()}), tally


def training_row(mixture: Mixture, key: str, questions: ledger.Kept, replies: ledger.Kept) -> dict:
    """One row in Sky-T1's form; its prompt is the very text the teacher was asked."""
    question = questions[key.rpartition("#")[0]]
    reply = chat.reply_text(replies[key]["reply"], None, mixture.mix.format)
    return {
        "id": key,
        "source": question["source"],
        "system": mixture.mix.system,
        "conversations": [
            {"from": "user", "value": user_turn(mixture, question)},
            {"from": "assistant", "value": reply},
        ],
        "kind": question["kind"],
        "gold": question["gold"],
    }
