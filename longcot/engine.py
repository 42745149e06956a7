"""Generate answers with transformers in process, into an append-only file that survives a kill.

The file is a `ledger`: answers made under other settings (model, prompt hash, sampling) are refused.
A batch whose answers are all there is never asked again.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from longcot import chat, ledger
from longcot.recipe import Eval


@dataclass(frozen=True)
class Request:
    """One answer to be generated; `row` is copied into the answers file (id, sample, gold, ...)."""

    row: dict[str, Any]
    prompt: str
    opens: str = ""  # what the prompt already wrote of the reply ("<think>"); put back before it

    @property
    def key(self) -> tuple[str, int]:
        return str(self.row["id"]), int(self.row["sample"])


def answer_all(
    requests: list[Request],
    path: Path,
    settings: dict[str, Any],
    generate: Callable[[list[str], int], list[tuple[str, str, int]]],
    batch_size: int,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[dict]:
    """Answer every request not yet in `path`; returns all answers in the order of `requests`.

    `generate(prompts, seed)` gives (text, finish_reason, tokens) per prompt. Batches are formed over
    all requests, longest prompt first, before looking at what is done, and a batch of which a kill
    left some answers is asked whole, so that a resumed run makes the same draws as an unbroken one.
    """
    ordered = sorted(requests, key=lambda request: (-len(request.prompt), request.key))
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    with ledger.opened(path, settings, "take another --run-name") as answers:
        done = {(str(row["id"]), int(row["sample"])): row for row in answers}
        for batch in progress(batches):
            if all(request.key in done for request in batch):
                continue
            seed = int(hashlib.sha256(repr([r.key for r in batch]).encode()).hexdigest()[:8], 16)
            replies = generate([request.prompt for request in batch], settings["seed"] + seed)
            for request, (text, reason, tokens) in zip(batch, replies, strict=True):
                if request.key in done:
                    continue
                done[request.key] = {
                    **request.row,
                    "response": request.opens + text,
                    "finish_reason": reason,
                    "tokens": tokens,
                }
                answers.append(done[request.key])
    return [done[request.key] for request in requests]


def transformers_engine(
    model: Any, tokenizer: Any, stop_token: str, evaluate: Eval
) -> Callable[[list[str], int], list[tuple[str, str, int]]]:
    """A `generate` for `answer_all`: left-padded batches through `model.generate`.

    Greedy at temperature 0. An answer ends at the chat template's end-of-turn token or the
    tokenizer's own end; `finish_reason` is "stop" then and "length" at max_new_tokens.
    """
    tokenizer.padding_side = "left"
    stops = {tokenizer.convert_tokens_to_ids(stop_token), tokenizer.eos_token_id}
    declared = model.generation_config.eos_token_id
    stops |= set(declared if isinstance(declared, list) else [declared])
    stops.discard(None)
    # Nothing else is taken from the model's own defaults: Qwen2.5 ships a repetition penalty of 1.05,
    # which would otherwise act on greedy decoding too, unseen by recipe and record.
    model.generation_config = GenerationConfig()
    sampling: dict[str, Any] = {"do_sample": evaluate.temperature > 0}
    if evaluate.temperature > 0:
        sampling |= {"temperature": evaluate.temperature, "top_p": evaluate.top_p, "top_k": 0}
    model.eval()

    @torch.inference_mode()
    def generate(prompts: list[str], seed: int) -> list[tuple[str, str, int]]:
        torch.manual_seed(seed)
        batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        device = model.get_input_embeddings().weight.device
        output = model.generate(
            **batch.to(device),
            **sampling,
            max_new_tokens=evaluate.max_new_tokens,
            eos_token_id=sorted(stops),
            pad_token_id=tokenizer.pad_token_id,
        )
        return [
            _reply(ids, stops, tokenizer)
            for ids in output[:, batch["input_ids"].shape[1] :].tolist()
        ]

    return generate


def _reply(ids: list[int], stops: set[int], tokenizer: Any) -> tuple[str, str, int]:
    end = next((i for i, token in enumerate(ids) if token in stops), None)
    kept = ids if end is None else ids[:end]
    reason = "length" if end is None else "stop"
    return tokenizer.decode(kept, skip_special_tokens=False), reason, len(kept) + (end is not None)


def expand(
    problems: Iterable[Any], template: chat.Template, system: str, samples: int
) -> Iterator[Request]:
    """`samples` requests for every problem, with the prompt training used."""
    for problem in problems:
        text = chat.render_prompt(problem.problem, template, system)
        for sample in range(samples):
            row = {"id": problem.id, "sample": sample, "kind": problem.kind, "gold": problem.answer}
            yield Request({**row, "question": problem.problem}, text, template.opens)
