"""Sizes counted from a config against the model that transformers builds from it."""

import json

import pytest

from longcot.errors import ModelError
from longcot.recipe import Lora, load_recipe
from longcot.shapes import KNOWN, from_config, read_shapes


def built(config: dict):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kept = {key: value for key, value in config.items() if value is not None}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**kept))


VARIANTS = {
    "qwen3": {"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 64, "head_dim": 32,
              "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
              "vocab_size": 100},
    "llama-bias": {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64,
                   "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 100,
                   "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", "num_hidden_layers": 2, "hidden_size": 64,
                "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
                "vocab_size": 100, "head_dim": 16},
    "gemma2": {"model_type": "gemma2", "num_hidden_layers": 2, "hidden_size": 64,
               "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
               "vocab_size": 100},
}  # fmt: skip


@pytest.mark.parametrize("name", [*KNOWN, *VARIANTS])
def test_parameters_are_counted_exactly(name):
    config = {**KNOWN, **VARIANTS}[name]
    found = from_config(config, name)
    assert found and found.total == sum(p.numel() for p in built(config).parameters())


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), ("down_proj",)])
def test_adapters_are_counted_as_peft_makes_them(targets):
    from peft import LoraConfig, get_peft_model

    config = {**KNOWN["Qwen/Qwen2.5-0.5B"], "num_hidden_layers": 2}
    modules = targets if isinstance(targets, str) else list(targets)
    model = get_peft_model(built(config), LoraConfig(r=8, target_modules=modules))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    lora = Lora(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets, use_rslora=False)
    found = from_config(config, "x")
    assert found and found.adapter(lora) == trained


def test_unknown_targets_are_refused():
    found = from_config(KNOWN["Qwen/Qwen2.5-7B"], "x")
    for targets, told in (
        (("q_proj", "v_prj"), "called 'v_prj'; did you mean \"v_proj\"\\? .*has q_proj, k_proj"),
        (("wo",), "no linear of a layer is called 'wo' "),
        (".*q_proj", "cannot be counted; write all-linear, or a list of names: q_proj"),
        ((), "cannot be counted"),
    ):
        lora = Lora(r=8, lora_alpha=8, lora_dropout=0.0, target_modules=targets, use_rslora=False)
        with pytest.raises(ModelError, match=told):
            found.adapter(lora)


def model_of(write_recipe, name):
    return load_recipe(write_recipe(model={"model_name_or_path": str(name)})).model


def test_a_local_folder_is_read(write_recipe, tiny_model_dir):
    found = read_shapes(model_of(write_recipe, tiny_model_dir))
    assert (found.layers, found.hidden, found.tied) == (2, 64, True)
    assert found.source.endswith("config.json")


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-32B-Instruct", "google/gemma-2-9b", "meta-llama/Llama-3.1-8B-Instruct"]
)
def test_the_papers_models_need_no_network(write_recipe, name):
    found = read_shapes(model_of(write_recipe, name))
    assert found.source == f"{name}, from the built-in table" and found.total > 8e9


def test_an_unreachable_hub_id_is_told_what_is_known(write_recipe):
    with pytest.raises(ModelError) as caught:
        read_shapes(model_of(write_recipe, "nobody/no-such-model"))
    assert "nobody/no-such-model" in str(caught.value) and "Qwen/Qwen2.5-32B" in str(caught.value)


def test_folders_that_hold_no_model(write_recipe, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(ModelError, match="no such file"):
        read_shapes(model_of(write_recipe, folder))
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="broken JSON"):
        read_shapes(model_of(write_recipe, folder))
    (folder / "config.json").write_text('{"model_type": "qwen2"}', encoding="utf-8")
    with pytest.raises(ModelError, match="has no 'hidden_size'"):
        read_shapes(model_of(write_recipe, folder))


def save(folder, config: dict):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_another_family_is_built_on_the_meta_device(write_recipe, tmp_path):
    config = {"model_type": "olmo2", "num_hidden_layers": 3, "hidden_size": 64, "vocab_size": 100,
              "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 4,
              "tie_word_embeddings": False, "pad_token_id": 1}  # fmt: skip
    found = read_shapes(model_of(write_recipe, save(tmp_path / "olmo", config)))
    real = sum(p.numel() for p in built(config).parameters())
    assert found.total == pytest.approx(real, rel=0.01)
    assert found.linears["down_proj"] == (160, 64) and "meta device" in found.source


@pytest.mark.parametrize("kind", ["mixtral", "phi3"])
def test_experts_and_joined_products_are_refused(write_recipe, tmp_path, kind):
    config = {"model_type": kind, "num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 100,
              "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2,
              "num_local_experts": 4, "pad_token_id": 1}  # fmt: skip
    with pytest.raises(ModelError, match="knows dense decoders with"):
        read_shapes(model_of(write_recipe, save(tmp_path / kind, config)))
