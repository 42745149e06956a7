"""What a model's config says about its size: widths, depths, parameters. No weights, no torch.

Counted from the config alone for the families below, and checked in the tests against the models that
transformers builds from the same config on the meta device. Any other family is built there.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longcot.errors import ModelError
from longcot.recipe import Lora, Model
from longcot.strict import nearest


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """A decoder of equal layers. Widths in elements; `linears` are one layer's (inputs, outputs)."""

    source: str  # where the numbers come from, for the reader
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool  # embedding and head are one matrix
    norms: int = 2  # per layer, of width `hidden`
    head_norms: bool = False  # queries and keys are normalised too (Qwen3)
    biases: frozenset[str] = frozenset()  # linears that have one
    linears: dict[str, tuple[int, int]] = field(default_factory=dict)
    config: dict[str, Any] = field(
        default_factory=dict, repr=False
    )  # what transformers builds from

    @property
    def query(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all keys, or values, of a token."""
        return self.kv_heads * self.head_dim

    @property
    def linear(self) -> int:
        """Weights of all layers' linear maps: what quantisation shrinks and adapters sit on."""
        return self.layers * sum(a * b for a, b in self.linears.values())

    @property
    def embedding(self) -> int:
        """Weights of the embedding, and of the head unless it is the same matrix."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def small(self) -> int:
        """Norms and biases."""
        per_layer = self.norms * self.hidden + sum(self.linears[name][1] for name in self.biases)
        return self.layers * (per_layer + 2 * self.head_dim * self.head_norms) + self.hidden

    @property
    def total(self) -> int:
        """All parameters of the base."""
        return self.linear + self.embedding + self.small

    def adapted(self, lora: Lora) -> dict[str, tuple[int, int]]:
        """The linears of a layer that carry an adapter; raises ModelError for a name it has not."""
        if lora.target_modules == "all-linear":
            return self.linears
        if isinstance(lora.target_modules, str) or not lora.target_modules:
            raise ModelError(
                f"lora.target_modules: {lora.target_modules!r} cannot be counted; write all-linear, or "
                f"a list of names: {', '.join(self.linears)}"
            )
        wanted = [name.rpartition(".")[2] for name in lora.target_modules]
        for name in wanted:
            if name not in self.linears:
                raise ModelError(
                    f"lora.target_modules: no linear of a layer is called {name!r}"
                    f"{nearest(name, self.linears)} (this model has {', '.join(self.linears)})"
                )
        return {name: shape for name, shape in self.linears.items() if name in wanted}

    def adapter(self, lora: Lora) -> int:
        """Parameters of the adapters: r x (inputs + outputs) for each adapted linear."""
        return self.layers * lora.r * sum(a + b for a, b in self.adapted(lora).values())


ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


def from_config(config: dict[str, Any], source: str) -> Shapes | None:
    """Shapes of a config of a known family; None for any other."""
    kind = config.get("model_type")
    if kind not in ("qwen2", "qwen3", "llama", "mistral", "gemma2"):
        return None
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    dim = config.get("head_dim") or (256 if kind == "gemma2" else hidden // heads)
    kv = config.get("num_key_value_heads") or heads
    width, key, inner = heads * dim, kv * dim, config["intermediate_size"]
    biases = set()
    if kind == "qwen2":
        biases |= {"q_proj", "k_proj", "v_proj"}
    elif config.get("attention_bias"):
        biases |= set(ATTENTION)
    if kind == "llama" and config.get("mlp_bias"):
        biases |= set(MLP)
    return Shapes(
        source=source,
        layers=config["num_hidden_layers"],
        hidden=hidden,
        intermediate=inner,
        heads=heads,
        kv_heads=kv,
        head_dim=dim,
        vocabulary=config["vocab_size"],
        tied=config.get("tie_word_embeddings", kind == "gemma2"),
        norms=4 if kind == "gemma2" else 2,
        head_norms=kind == "qwen3",
        biases=frozenset(biases),
        linears={
            "q_proj": (hidden, width),
            "k_proj": (hidden, key),
            "v_proj": (hidden, key),
            "o_proj": (width, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        },
        config={key: value for key, value in config.items() if value is not None},
    )


def _known(kind: str, *numbers: int, tied: bool = False, dim: int | None = None) -> dict:
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
             "num_key_value_heads", "vocab_size")  # fmt: skip
    config = dict(zip(names, numbers, strict=True))
    return {"model_type": kind, **config, "tie_word_embeddings": tied, "head_dim": dim}


# The models of the papers, so that a plan needs no network. -Instruct and -it share their base's.
KNOWN = {
    "Qwen/Qwen2.5-0.5B": _known("qwen2", 24, 896, 4864, 14, 2, 151936, tied=True),
    "Qwen/Qwen2.5-1.5B": _known("qwen2", 28, 1536, 8960, 12, 2, 151936, tied=True),
    "Qwen/Qwen2.5-3B": _known("qwen2", 36, 2048, 11008, 16, 2, 151936, tied=True),
    "Qwen/Qwen2.5-7B": _known("qwen2", 28, 3584, 18944, 28, 4, 152064),
    "Qwen/Qwen2.5-14B": _known("qwen2", 48, 5120, 13824, 40, 8, 152064),
    "Qwen/Qwen2.5-32B": _known("qwen2", 64, 5120, 27648, 40, 8, 152064),
    "Qwen/Qwen2.5-72B": _known("qwen2", 80, 8192, 29568, 64, 8, 152064),
    "meta-llama/Llama-3.1-8B": _known("llama", 32, 4096, 14336, 32, 8, 128256),
    "meta-llama/Llama-3.2-3B": _known("llama", 28, 3072, 8192, 24, 8, 128256, tied=True, dim=128),
    "google/gemma-2-9b": _known("gemma2", 42, 3584, 14336, 16, 8, 256000, tied=True, dim=256),
}


def read_shapes(model: Model) -> Shapes:
    """The shapes of a recipe's model: a local folder's config.json, the hub's cache, the table, the hub.

    Raises ModelError where none of them has it, or where the layers are not equal linear ones.
    """
    name = model.model_name_or_path
    folder = Path(name)
    if folder.is_dir():
        return _read(folder / "config.json", f"{name}/config.json")
    cached = _from_hub(name, model.model_revision, local_files_only=True)
    if cached:
        return _read(cached, f"{name}, cached config.json")
    for suffix in ("", "-Instruct", "-it"):
        if name.removesuffix(suffix) in KNOWN:
            known = from_config(
                KNOWN[name.removesuffix(suffix)], f"{name}, from the built-in table"
            )
            assert known
            return known
    fetched = _from_hub(name, model.model_revision, local_files_only=False)
    if fetched:
        return _read(fetched, f"{name}, config.json of the hub")
    raise ModelError(
        f"model.model_name_or_path {name!r}: no such folder, not in the hub's cache, and the hub cannot "
        f"be reached for its config.json; a plan without it knows {', '.join(KNOWN)}"
    )


def _from_hub(name: str, revision: str, *, local_files_only: bool) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        options: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
        return Path(hf_hub_download(name, "config.json", **options))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def _read(path: Path, source: str) -> Shapes:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; a model's folder holds its config.json") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: broken JSON ({error}); fetch the model again") from None
    config = {**config, **config.get("text_config", {})}
    try:
        return from_config(config, source) or on_meta(path.parent, source)
    except KeyError as error:
        raise ModelError(f"{path}: has no {error}, so no plan can be made from it") from None


def on_meta(folder: Path, source: str) -> Shapes:
    """Shapes of any other decoder: built by transformers on the meta device, then looked at.

    Raises ModelError for models whose layers are not all alike (mixtures of experts among them).
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder).get_text_config()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linears, norms, biases = _look(model.base_model.layers, torch.nn.Linear)
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    found = Shapes(
        source=f"{source}, built on the meta device",
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        head_dim=dim,
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
        norms=norms // config.hidden_size,
        biases=biases,
        linears=linears,
        config=config.to_dict(),
    )
    real = sum(parameter.numel() for parameter in model.parameters())
    if abs(found.total - real) > real / 100 or set(linears) != {*ATTENTION, *MLP}:
        raise ModelError(
            f"{source}: model_type {config.model_type} has {real:,} parameters, of which the plan finds "
            f"{found.total:,} in {', '.join(linears)}; it knows dense decoders with "
            f"{', '.join((*ATTENTION, *MLP))} only, so measure this one with --benchmark"
        )
    return found


def _look(layers: Any, linear: type) -> tuple[dict[str, tuple[int, int]], int, frozenset[str]]:
    """Linears, norm parameters and biased linears of the first layer."""
    linears, biases = {}, set()
    for name, module in layers[0].named_modules():
        if isinstance(module, linear):
            leaf = name.rpartition(".")[2]
            linears[leaf] = (module.in_features, module.out_features)
            if module.bias is not None:
                biases.add(leaf)
    small = sum(p.numel() for p in layers[0].parameters() if p.ndim == 1)
    norms = small - sum(linears[name][1] for name in biases)
    return linears, norms, frozenset(biases)
