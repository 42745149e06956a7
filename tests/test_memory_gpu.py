"""The plan's bytes against a GPU's, with torch, transformers and PEFT alone: `pytest -m gpu tests`."""

import dataclasses

import pytest
import torch
from memory_cases import LORA, build, setup_for, shapes_of

from longcot.memory import estimate
from longcot.shapes import KNOWN

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# Four layers at Qwen2.5-32B's widths; a small vocabulary, since TRL's head is not at hand here.
WIDE = {**KNOWN["Qwen/Qwen2.5-32B"], "num_hidden_layers": 4, "vocab_size": 1024}
WIDE = {key: value for key, value in WIDE.items() if value is not None}
MIXED = {"base": "bfloat16", "autocast": True, "cuda": True}


@pytest.mark.parametrize("tokens", [4096, 16384])
@pytest.mark.parametrize(
    "changes",
    [{}, {"branch_first": False, "cast_inputs": True}, {"unchecked": 2}, {"checkpointing": False}],
    ids=["checkpointed", "plain-peft", "partly", "unchecked"],
)
def test_a_step_allocates_what_is_estimated(changes, tokens):
    lora = dataclasses.replace(LORA, r=64)
    setup = setup_for(**{**MIXED, "lora": lora, "tokens": tokens, "row": tokens, **changes})
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with torch.device("cuda"):
        model = build(setup, WIDE, fused_head=False)
        ids = torch.zeros((1, tokens), dtype=torch.long)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            hidden = model(input_ids=ids, attention_mask={"full_attention": None}, use_cache=False)
        hidden.logits.mean().backward()

    step()  # gradients come to life
    torch.cuda.reset_peak_memory_stats()
    step()
    peak = torch.cuda.max_memory_allocated() - before
    kinds = estimate(shapes_of(WIDE), setup).kinds
    expected = sum(kinds.values()) - kinds["workspace"] - kinds["optimizer"]
    print(
        f"{changes or 'checkpointed'} at {tokens}: {peak / 1e9:.2f} GB, expected {expected / 1e9:.2f}"
    )
    assert expected == pytest.approx(peak, rel=0.1)
