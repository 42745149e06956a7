"""Answers on disk that survive a kill, and generation that left padding does not change."""

import json
import random
from dataclasses import dataclass, replace

import pytest
import torch

from longcot import chat, engine, models, rows
from longcot.errors import RowError
from longcot.recipe import Eval, Model

SETTINGS = {"model": "tiny", "prompt": "p0", "temperature": 0.0, "seed": 5, "task": "t0"}
EVAL = Eval(tasks=("x",), max_new_tokens=24, temperature=0.0, top_p=1.0, n=1, seed=0, batch_size=4)


def make_requests(count: int = 11, samples: int = 1) -> list[engine.Request]:
    return [
        engine.Request(
            {"id": f"p{i}", "sample": sample, "gold": str(i)}, "x" * (1 + i % 5) + str(i)
        )
        for i in range(count)
        for sample in range(samples)
    ]


class Oracle:
    """A stand-in for a model whose draws depend, as a model's do, on seed and whole batch."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.stop_after = stop_after

    def __call__(self, prompts: list[str], seed: int) -> list[tuple[str, str, int]]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += prompts
        draw = random.Random(seed)
        return [(f"{prompt} {draw.random()}", "stop", len(prompt)) for prompt in prompts]


def answer(path, oracle, requests=None, settings=SETTINGS, batch_size=3):
    return engine.answer_all(requests or make_requests(), path, settings, oracle, batch_size)


def test_answers_come_in_the_order_of_the_requests_and_once_each(tmp_path):
    oracle = Oracle()
    requests = make_requests(samples=2)
    found = answer(tmp_path / "a.jsonl", oracle, requests)
    assert [(row["id"], row["sample"]) for row in found] == [request.key for request in requests]
    assert sorted(oracle.asked) == sorted(request.prompt for request in requests)
    assert all(row["response"].startswith(r.prompt) for row, r in zip(found, requests, strict=True))
    assert found[0].keys() == {"id", "sample", "gold", "response", "finish_reason", "tokens"}
    assert len(list(rows.read_jsonl(tmp_path / "a.jsonl"))) == len(requests)
    beside = rows.read_json(tmp_path / "a.settings.json")
    assert beside.pop("begun") and beside == SETTINGS


@pytest.mark.parametrize("stop_after", [0, 3, 9])
def test_a_stopped_run_asks_nothing_twice_and_ends_as_an_unbroken_one(tmp_path, stop_after):
    whole = answer(tmp_path / "whole.jsonl", Oracle())
    path = tmp_path / "broken.jsonl"
    first = Oracle(stop_after)
    with pytest.raises(KeyboardInterrupt):
        answer(path, first)
    assert len(list(rows.read_jsonl(path))) == stop_after
    second = Oracle()
    assert answer(path, second) == whole
    assert not set(first.asked) & set(second.asked)
    assert len(first.asked) + len(second.asked) == len(whole)
    third = Oracle()
    assert answer(path, third) == whole
    assert third.asked == []
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("cut", [1, 40, 100, 170, 300])
def test_a_torn_last_line_is_dropped_and_its_batch_drawn_again(tmp_path, cut):
    whole = answer(tmp_path / "whole.jsonl", Oracle())
    raw = (tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "torn.jsonl"
    rows.write_json(tmp_path / "torn.settings.json", SETTINGS)
    path.write_bytes(raw[:-cut])
    oracle = Oracle()
    assert answer(path, oracle) == whole
    assert len(oracle.asked) <= 6  # the batches that lost an answer, and no others
    assert path.read_bytes() == raw
    path.write_bytes(raw[:20])  # not even the first line
    assert answer(path, Oracle()) == whole


def test_answers_made_otherwise_are_refused_with_what_differs(tmp_path):
    path = tmp_path / "a.jsonl"
    answer(path, Oracle())
    before = path.read_bytes()
    for change in ({"prompt": "p1"}, {"temperature": 0.7}, {"model": "other"}, {"top_p": 0.9}):
        oracle = Oracle()
        with pytest.raises(RowError) as caught:
            answer(path, oracle, settings={**SETTINGS, **change})
        message, (key, value) = str(caught.value), next(iter(change.items()))
        assert f"{key} was {SETTINGS.get(key)!r}, is {value!r}" in message
        assert "a.jsonl" in message and "--run-name" in message
        assert oracle.asked == [] and path.read_bytes() == before
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text(json.dumps({"id": "p0", "sample": 0, "response": "x"}) + "\n")
    with pytest.raises(RowError, match="other settings"):
        answer(foreign, Oracle())


def test_the_thought_a_prompt_opens_is_put_back(tmp_path):
    request = engine.Request({"id": "a", "sample": 0}, "ask<think>\n", opens="<think>\n")
    found = answer(tmp_path / "a.jsonl", lambda p, s: [("so</think>\n4", "stop", 3)], [request])
    assert found[0]["response"] == "<think>\nso</think>\n4"
    assert chat.split(found[0]["response"], "think").solution.strip() == "4"


# ---- the transformers engine


@pytest.fixture(scope="module")
def tiny(tiny_model_dir):
    """The tiny model with louder weights, so that its answers depend on what it reads."""
    settings = Model(
        model_name_or_path=str(tiny_model_dir),
        model_revision="main",
        dtype="float32",
        attn_implementation="sdpa",
        load_in_4bit=False,
    )
    model = models.load_model(settings, use_cpu=True)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj.weight" in name or "embed" in name:
                parameter.normal_(std=0.25)
    return model, models.load_tokenizer(settings)


PROMPTS = ["a", "what is 12 plus 7?", "say\n\nit", "the longest prompt of them all, by some way."]


def test_left_padding_gives_the_greedy_answers_of_one_by_one(tiny):
    model, tokenizer = tiny
    generate = engine.transformers_engine(model, tokenizer, "<|im_end|>", EVAL)
    together = generate(PROMPTS, 0)
    assert together == [generate([prompt], 0)[0] for prompt in PROMPTS]
    assert together == list(reversed(generate(list(reversed(PROMPTS)), 7)))  # seed moves nothing
    assert len({text for text, _, _ in together}) == len(PROMPTS)
    tokenizer.padding_side = "left"
    for prompt, (text, reason, tokens) in zip(PROMPTS, together, strict=True):
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        for _ in range(tokens):  # greedy by hand, no cache, no padding
            with torch.no_grad():
                following = model(ids, use_cache=False).logits[0, -1].argmax()
            ids = torch.cat([ids, following.view(1, 1)], dim=1)
        written = tokenizer.decode(ids[0])
        assert written == prompt + text + ("<|im_end|>" if reason == "stop" else "")


def forced(model, monkeypatch, token: int, at: int) -> None:
    """Make the model write `token` as its `at`-th new token, and never before."""
    real = model.forward
    calls = []

    def forward(*arguments, **options):
        output = real(*arguments, **options)
        calls.append(1)
        output.logits[:, -1, token] = 1e4 if len(calls) == at else -1e4
        return output

    monkeypatch.setattr(model, "forward", forward)


@pytest.mark.parametrize(
    ("at", "reason", "tokens"),
    [(1, "stop", 1), (5, "stop", 5), (24, "stop", 24), (25, "length", 24)],
)
def test_generation_ends_at_the_end_of_turn_or_at_the_limit(tiny, monkeypatch, at, reason, tokens):
    model, tokenizer = tiny
    forced(model, monkeypatch, tokenizer.convert_tokens_to_ids("<|im_end|>"), at)
    generate = engine.transformers_engine(model, tokenizer, "<|im_end|>", EVAL)
    for text, found, count in generate(PROMPTS[:2], 0):
        assert (found, count) == (reason, tokens)  # the end token is counted, and not shown
        assert "<|im_end|>" not in text
        if at == 1:
            assert text == ""


def test_another_end_of_turn_token_ends_an_answer_too(tiny, monkeypatch):
    model, tokenizer = tiny
    forced(model, monkeypatch, tokenizer.convert_tokens_to_ids("<|im_start|>"), 3)
    generate = engine.transformers_engine(model, tokenizer, "<|im_start|>", EVAL)
    assert [row[1:] for row in generate(PROMPTS, 0)] == [("stop", 3)] * 4


def test_sampling_follows_the_seed_and_is_resumable(tiny, tmp_path):
    model, tokenizer = tiny
    evaluate = replace(EVAL, temperature=1.0, top_p=0.9, max_new_tokens=8)
    generate = engine.transformers_engine(model, tokenizer, "<|im_end|>", evaluate)
    assert generate(PROMPTS, 1) == generate(PROMPTS, 1) != generate(PROMPTS, 2)
    requests = [
        engine.Request({"id": prompt, "sample": sample}, prompt)
        for prompt in PROMPTS
        for sample in range(2)
    ]
    whole = engine.answer_all(requests, tmp_path / "whole.jsonl", SETTINGS, generate, 3)
    path = tmp_path / "torn.jsonl"
    rows.write_json(tmp_path / "torn.settings.json", SETTINGS)
    raw = (tmp_path / "whole.jsonl").read_bytes()
    for end in (3, 4, 5):  # a whole batch there, and parts of the next
        lines = raw.splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:end]) + lines[end][:9])
        assert engine.answer_all(requests, path, SETTINGS, generate, 3) == whole


def test_the_models_own_generation_defaults_do_not_act(tiny):
    """Qwen2.5 ships a repetition penalty; neither the recipe nor the record would show it."""
    model, tokenizer = tiny
    plain = engine.transformers_engine(model, tokenizer, "<|im_end|>", EVAL)(PROMPTS, 0)
    model.generation_config.repetition_penalty = 3.0
    model.generation_config.no_repeat_ngram_size = 1
    model.generation_config.top_k = 1
    assert engine.transformers_engine(model, tokenizer, "<|im_end|>", EVAL)(PROMPTS, 0) == plain


def test_expand_asks_every_problem_n_times_with_the_training_prompt(tokenizer, template):
    @dataclass
    class Problem:
        id: str
        problem: str
        answer: str
        kind: str = "math"

    problems = [Problem("a", "1+1?", "2"), Problem("b", "2+2?", "4")]
    found = list(engine.expand(problems, template, "be brief", 3))
    assert [request.key for request in found] == [(i, s) for i in "ab" for s in range(3)]
    trace = rows.Trace("f:1", "s", "be brief", (("user", "2+2?"), ("assistant", "4")))
    prompt, reply = chat.render(trace, template, "plain", "from_data")
    assert found[-1].prompt == prompt.text and not prompt.learn and reply.learn
    assert found[-1].row == {
        "id": "b", "sample": 2, "kind": "math", "gold": "4", "question": "2+2?"}  # fmt: skip
