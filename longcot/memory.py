"""Bytes a GPU needs at the worst moment of a training step, split by kind, from shapes alone.

The counts follow what transformers' layers, PEFT's eager LoRA, TRL's tiled head and autograd keep; the
tests hold them against the bytes such models really allocate. What no count can know (CUDA context,
cuBLAS, NCCL, fragmentation) is the constant kind "workspace".
"""

from dataclasses import dataclass
from typing import Literal

from longcot.recipe import Lora
from longcot.shapes import Shapes
from longcot.sharding import Launcher

# NF4: half a byte, an 8-bit scale for every 64 weights, a float32 one for every 256 of those.
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
WORKSPACE, NCCL = 2.0e9, 1.0e9
TILE_TOKENS, TILE_WORDS = 4096, 32768  # TRL's tiled language-model head
LIVE_PARAMETERS = 1e9  # DeepSpeed's stage3_max_live_parameters
STASH = 5  # layers whose offloaded inputs are still, or again, on the GPU: TRL's max_fwd_stash_size

MOVING = ("layer inputs", "attention outputs", "unchecked layers", "one layer", "cast weights", "loss",
          "step")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a model is trained, as far as memory goes. `lora` None: full fine-tuning."""

    lora: Lora | None
    base: Literal["float32", "bfloat16", "nf4", "fp8"]  # how the base's linears are stored
    autocast: bool  # products in bfloat16 over float32 trainable weights
    optim: str
    launcher: Launcher
    tokens: int  # of one forward pass on one GPU
    row: int  # tokens of one sequence
    attention: Literal["flash", "sdpa", "eager"]
    masked: bool  # sdpa or eager needs a mask (packed or padded rows)
    cuda: bool = True
    checkpointing: bool = True
    selective: bool = False  # checkpoints keep the attention's output
    unchecked: int = 0  # this many last layers are not checkpointed
    offload: bool = False  # checkpointed inputs wait in the host's memory
    fused: bool = False  # liger's norms, RoPE and SwiGLU
    fused_lora: bool = False  # adapters added inside one product, their inputs not cast or copied
    branch_first: bool = True  # down_proj's adapter runs before its frozen product
    cast_inputs: bool = False  # plain PEFT, and dropout: inputs are copied to float32 and back

    @property
    def item(self) -> int:
        """Bytes of one activation."""
        return 2 if self.autocast or self.base == "bfloat16" and self.lora else 4

    @property
    def sharded(self) -> bool:
        """Whether parameters are gathered, in bfloat16, when a layer runs."""
        return self.launcher.kind in ("fsdp2", "zero3")

    @property
    def stream(self) -> int:
        """Bytes of one element of the residual stream: float32 where the embedding is."""
        return 4 if self.lora is None and not self.sharded else self.item

    @property
    def adapter_item(self) -> int:
        """Bytes of one adapter weight: float32, except that ZeRO-3 wants the base's precision."""
        return 2 if self.launcher.kind == "zero3" else 4

    @property
    def casts(self) -> bool:
        """Whether there is anything to cast: not for PEFT's 4-bit layers, nor for sharded adapters."""
        if self.lora is None or self.fused_lora or self.base == "nf4" or self.sharded:
            return False
        return self.cast_inputs and self.item == 2

    def checked(self, shapes: Shapes) -> int:
        """How many layers are checkpointed."""
        return max(0, shapes.layers - self.unchecked) if self.checkpointing else 0


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the worst moment, by kind, and what the host must hold for one node."""

    kinds: dict[str, float]
    moment: str
    host: float

    @property
    def total(self) -> float:
        """All kinds together."""
        return sum(self.kinds.values())


def estimate(shapes: Shapes, setup: Setup) -> Memory:
    """The worst moment of a step at `setup.tokens` tokens, gradients of earlier passes included."""
    static, host = _static(shapes, setup)
    checked = setup.checked(shapes)
    saved = _checkpoints(shapes, setup)
    if setup.offload:
        host += sum(saved.values()) * setup.launcher.local
        saved = {kind: size * min(1, STASH / max(1, checked)) for kind, size in saved.items()}
    layer, (forward, backward) = _layer(shapes, setup), _loss(shapes, setup)
    between = {**saved, "unchecked layers": (shapes.layers - checked) * layer.kept}
    casts = _cast_weights(shapes, setup) * checked / shapes.layers
    moments = {
        "forward pass": {**between, "cast weights": casts, "loss": forward},
        "loss": {**between, "loss": backward},
        "optimizer step": {"step": _step(shapes, setup)},
    }
    if checked < shapes.layers:
        moments["last layer"] = {**between, "one layer": max(layer.rerun, layer.back)}
    if checked:  # the unchecked last layers are gone when the first checkpoint is rerun
        live = layer.kept + max(layer.rerun, layer.back) - layer.given
        moments["a rerun layer"] = {**saved, "one layer": live}
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    kinds = static | {kind: moments[moment].get(kind, 0.0) for kind in MOVING}
    workspace = WORKSPACE + NCCL * (setup.launcher.processes > 1) if setup.cuda else 0.0
    return Memory({**kinds, "workspace": workspace}, moment, host)


def trainable(shapes: Shapes, setup: Setup) -> int:
    """Parameters that are trained."""
    return shapes.adapter(setup.lora) if setup.lora else shapes.total


def _static(shapes: Shapes, setup: Setup) -> tuple[dict[str, float], float]:
    """What is there all the time, and what of it waits in one node's host memory."""
    launcher, full = setup.launcher, setup.lora is None
    trained = trainable(shapes, setup)
    zero = launcher.kind == "zero3"
    item = 2 if zero or (not full and setup.base != "float32") else 4
    linear = {"nf4": NF4, "fp8": 1.0}.get(setup.base, item)
    scales = 4 * sum(out for _, out in shapes.linears.values()) * shapes.layers
    weights = shapes.linear * linear + (shapes.embedding + shapes.small) * item
    weights += scales * (setup.base == "fp8")
    adapters = 0 if full else trained * setup.adapter_item
    gradients = trained * (2 if zero else 4)
    state = trained * _state(setup)
    if launcher.kind == "ddp":
        gradients *= 2  # its buckets hold a second copy
    pieces, optimizer_pieces = launcher.shards, launcher.shards
    if launcher.kind in ("zero1", "zero2"):
        optimizer_pieces = launcher.processes
    found = {
        "weights": weights / pieces,
        "gathered": _gathered(shapes, setup),
        "adapters": adapters / pieces,
        "gradients": gradients / (optimizer_pieces if launcher.kind == "zero2" else pieces),
        "optimizer": state / optimizer_pieces,
    }
    host, local = 0.0, launcher.local
    away = ["weights", "adapters"] * launcher.offload_parameters
    away += ["gradients", "optimizer"] * launcher.offload_optimizer
    for kind in away:
        host += found[kind] * local
        found[kind] = 0.0
    return found, host


def _state(setup: Setup) -> float:
    """Bytes of optimizer state for one trained parameter: Adam's two moments, DeepSpeed's master too."""
    moments = 2 + 8 / 256 if "8bit" in setup.optim else 8
    return moments + 4 * setup.launcher.kind.startswith("zero")


def _gathered(shapes: Shapes, setup: Setup) -> float:
    """Whole layers that sharding keeps in bfloat16 around the one at work, and their gradients."""
    if not setup.sharded:
        return 0.0
    layer = _layer_weights(shapes)
    reduced = 2 * layer if setup.lora is None else 0
    if setup.launcher.kind == "zero3":
        return 2.0 * (min(LIVE_PARAMETERS, shapes.total) + reduced)
    return 2.0 * (2 * layer + reduced)  # this layer and the next, prefetched


def _layer_weights(shapes: Shapes) -> int:
    return sum(a * b for a, b in shapes.linears.values())


def _cast_weights(shapes: Shapes, setup: Setup) -> float:
    """bfloat16 copies of float32 trained weights, which autocast keeps until the forward pass ends."""
    if not setup.autocast or setup.sharded:
        return 0.0
    if setup.lora:
        return 2.0 * shapes.adapter(setup.lora)
    return 2.0 * shapes.linear


def _checkpoints(shapes: Shapes, setup: Setup) -> dict[str, float]:
    """What checkpointed layers keep until their backward pass, wherever it lies."""
    tokens = setup.checked(shapes) * setup.tokens
    attention = setup.item * shapes.query + 4 * shapes.heads
    return {
        "layer inputs": float(tokens * setup.stream * shapes.hidden),
        "attention outputs": float(tokens * attention * setup.selective),
    }


@dataclass(frozen=True)
class _Layer:
    """Bytes of one layer."""

    kept: float  # from its forward to its backward pass
    rerun: float  # on top, while a forward pass reaches its end
    back: float  # on top, in its backward pass
    given: float  # the part of `kept` that a checkpoint holds anyway


def _layer(shapes: Shapes, setup: Setup) -> _Layer:
    e, w, full, tokens = setup.item, setup.stream, setup.lora is None, setup.tokens
    h, i, q, k = shapes.hidden, shapes.intermediate, shapes.query, shapes.key
    adapted = shapes.adapted(setup.lora) if setup.lora else shapes.linears
    kept = shapes.norms * h * (w if setup.fused else _norm(setup))
    kept += shapes.head_norms * (q + k) * _norm(setup)
    kept += e * sum(_inputs(adapted, shapes, setup))
    if setup.lora:
        kept += e * setup.lora.r * len(adapted)
        if setup.lora.lora_dropout:
            kept += (e + 1) * sum(width for width, _ in adapted.values())
    repeated = setup.masked or setup.attention == "eager"  # keys and values for every query head
    kept += e * (2 * q + 2 * (q if repeated else k)) + 4 * shapes.heads
    scores = shapes.heads * setup.row * (setup.attention == "eager")
    kept += scores * (6 if e == 2 else 4)
    mlp = e * i * (2 if setup.fused else 3)  # gate, up, and the gate's activation
    # Rerun to its end: the last product's input, once more in float32 where PEFT casts it.
    rerun = (e + 4) * i * setup.casts + (3 * w + e) * h
    # Backwards: gradients of the MLP's three wide tensors, less the one no longer wanted.
    back = e * i * (1 if setup.fused and setup.fused_lora else 2) + 2 * w * h
    back = max(back, scores * (6 if e == 2 else 8) - mlp)
    mask = setup.row**2 * setup.masked  # of bytes, once; sdpa keeps each layer's as numbers
    largest = max(a * b for a, b in shapes.linears.values())
    weights = largest * (4 + e * setup.autocast) * full  # its gradient, before it is added
    expanded = largest * e * (setup.base in ("nf4", "fp8"))
    given = w * h * (w == 4 or setup.fused) + setup.selective * (e * q + 4 * shapes.heads)
    return _Layer(
        kept=(kept + mlp) * tokens + _cast_weights(shapes, setup) / shapes.layers + mask * e,
        rerun=rerun * tokens + mask + expanded,
        back=max(back * tokens + mask + expanded, (e * i + w * h) * tokens + weights),
        given=float(given * tokens),
    )


def _norm(setup: Setup) -> int:
    """Bytes an eager RMSNorm keeps of each element: its float32 input, its output if it is trained."""
    return 4 + (setup.stream if setup.lora is None else 0)


def _inputs(adapted: dict, shapes: Shapes, setup: Setup) -> list[int]:
    """Widths of what the trained or adapted products keep of their inputs, attention's output apart."""
    if setup.casts:
        return [width for width, _ in adapted.values()]
    widths = []
    for group in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("down_proj",)):
        users = len(set(group) & set(adapted))
        copies = setup.stream > setup.item and group != ("down_proj",)  # autocast: one for each
        widths += [shapes.linears[group[0]][0]] * (users if copies else min(1, users))
    return widths


def _loss(shapes: Shapes, setup: Setup) -> tuple[float, float]:
    """The head, forward and backward: hidden states, their float32 gradient, a tile of logits."""
    e, w, h, n = setup.item, setup.stream, shapes.hidden, setup.tokens
    rows, words = min(n, TILE_TOKENS), min(shapes.vocabulary, TILE_WORDS)
    states = n * h * (_norm(setup) + w)  # of the last norm
    tile = rows * TILE_WORDS * e + words * h * e * (w > e)  # and a slice of the head, cast
    if setup.cuda:
        states += n * h * w  # the positions that have a label, taken out
    else:
        tile += rows * words * 29  # without Triton: in float32, several at a time
    head = shapes.vocabulary * h
    gathered = 2.0 * head * setup.sharded
    trained = 4.0 * head * (setup.lora is None)
    return states + tile + gathered, states + tile + gathered + n * h * (4 + w) + trained


def _step(shapes: Shapes, setup: Setup) -> float:
    """What the optimizer adds while it steps: unfused Adam's square roots."""
    if setup.optim != "adamw_torch" or setup.launcher.offload_optimizer:
        return 0.0
    if not setup.cuda:  # one tensor after the other
        sizes = [a * b for a, b in shapes.linears.values()]
        if setup.lora:
            sizes = [setup.lora.r * max(pair) for pair in shapes.linears.values()]
        return 8.0 * max(sizes)
    return 4.0 * trainable(shapes, setup) / setup.launcher.shards
