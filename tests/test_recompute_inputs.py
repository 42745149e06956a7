"""Adapters that are handed their inputs as they are: gradients of plain PEFT, fewer copies."""

import pytest
import torch
from model_cases import make, make_trainer  # noqa: F401
from peft import LoraConfig, get_peft_model
from test_recompute import LAYERS, TINY, assert_equal, check, step
from transformers import Qwen2Config, Qwen2ForCausalLM

from longcot import recompute
from longcot import trainer as setup
from longcot.fp8 import quantize_base


def mixed(fp8=False, dropout=0.0):
    """A bfloat16 or FP8 base under float32 adapters, as train.py has it; checkpointed."""
    torch.manual_seed(0)
    base = Qwen2ForCausalLM(Qwen2Config(**TINY, attn_implementation="sdpa")).bfloat16()
    if fp8:
        quantize_base(base)
    settings = LoraConfig(
        r=4, target_modules="all-linear", lora_dropout=dropout, init_lora_weights=False
    )
    model = get_peft_model(base, settings).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.enable_input_require_grads()
    check(base)
    return model


@pytest.mark.parametrize("first", [False, True], ids=["plain", "branch-first"])
@pytest.mark.parametrize(
    ("fp8", "dropout"), [(False, 0.0), (False, 0.3), (True, 0.0)], ids=["bf16", "dropout", "fp8"]
)
def test_no_bit_changes_and_nothing_is_copied(fp8, dropout, first):
    found = []
    for kept in (False, True):
        model = mixed(fp8, dropout)
        if kept and first:
            recompute.lora_first(model)
        if kept:
            assert recompute.keep_inputs(model) == (0 if dropout else 7 * LAYERS)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(step(model))
    (plain, before), (ours, after) = found
    assert_equal(ours, plain)
    copies = before.count("aten._to_copy") - after.count("aten._to_copy")
    # Of each input one to float32 and one back, in both forward passes and of its gradient.
    assert copies == 0 if dropout else copies >= 6 * LAYERS * 6


def test_only_autocast_training_leaves_the_cast_to_nobody(make, tmp_path):
    recipe, dataset, _, tokenizer = make()
    trainer = make_trainer(recipe, dataset, tokenizer, tmp_path / "run")

    def casting() -> set[bool]:
        layers = [m for m in trainer.model.modules() if hasattr(m, "cast_input_dtype_enabled")]
        assert layers
        return {layer.cast_input_dtype_enabled for layer in layers}

    setup.shorten_recomputation(recipe, trainer)  # float32, no autocast
    assert casting() == {True}
    trainer.args.bf16 = True
    trainer.is_fsdp_enabled = True
    setup.shorten_recomputation(recipe, trainer)
    assert casting() == {True}
    trainer.is_fsdp_enabled = False
    setup.shorten_recomputation(recipe, trainer)
    assert casting() == {False}
