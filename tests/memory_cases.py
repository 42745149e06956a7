"""For tests of memory: small models trained for a step while every allocation is counted."""

import weakref

import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen2Config, Qwen2ForCausalLM

from longcot.memory import Setup
from longcot.recipe import Lora
from longcot.recompute import keep_inputs, lora_first
from longcot.shapes import Shapes, from_config
from longcot.sharding import Launcher

# The proportions of Qwen2.5-32B, small.
SMALL = {"model_type": "qwen2", "num_hidden_layers": 6, "hidden_size": 160, "intermediate_size": 864,
         "num_attention_heads": 10, "num_key_value_heads": 2, "vocab_size": 64,
         "tie_word_embeddings": False}  # fmt: skip
TOKENS = 1024
LORA = Lora(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", use_rslora=False)


def shapes_of(config: dict) -> Shapes:
    found = from_config(config, "test")
    assert found
    return found


def setup_for(**changes) -> Setup:
    """A small model on CPU in float32, everything eager."""
    settings = {"lora": LORA, "base": "float32", "autocast": False, "optim": "adamw_torch",
                "launcher": Launcher(), "tokens": TOKENS, "row": TOKENS, "attention": "sdpa",
                "masked": False, "cuda": False, **changes}  # fmt: skip
    return Setup(**settings)


def build(setup: Setup, config: dict = SMALL, fused_head: bool = True) -> torch.nn.Module:
    """The model as train.py has it once the Trainer is made: TRL's head, PEFT's adapters, checkpoints."""
    settings = {key: value for key, value in config.items() if key != "model_type"}
    given = Qwen2Config(**settings)
    given._attn_implementation = setup.attention
    torch.set_default_dtype(getattr(torch, setup.base))
    try:
        model = Qwen2ForCausalLM(given)
    finally:
        torch.set_default_dtype(torch.float32)
    if fused_head:
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    base = model
    if setup.lora:
        model = get_peft_model(
            base,
            LoraConfig(
                r=setup.lora.r, target_modules=setup.lora.target_modules, task_type="CAUSAL_LM"
            ),
        )
        model.enable_input_require_grads()
        if setup.branch_first:
            lora_first(model)
        if setup.autocast and not setup.cast_inputs:
            keep_inputs(model)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    model.train()
    if setup.checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        layers = base.model.layers
        for layer in layers[len(layers) - setup.unchecked :]:
            layer.gradient_checkpointing = False
    return model


def forward(model: torch.nn.Module, setup: Setup) -> torch.Tensor:
    """The loss of one row, as TRL computes it."""
    ids = torch.zeros((1, setup.row), dtype=torch.long)
    mask = None
    if setup.masked:
        shape = (1, 1, setup.row, setup.row)
        dtype = torch.bool if setup.attention == "sdpa" else torch.float32
        mask = torch.ones(shape, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=setup.autocast):
        output = model(input_ids=ids, attention_mask={"full_attention": mask}, labels=ids,
                       fused_lm_head=True, use_cache=False)  # fmt: skip
    return output.loss


class Tracker(TorchDispatchMode):
    """Bytes of all storages that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.now = self.peak = 0

    def see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, key)

    def forget(self, key: int) -> None:
        self.now -= self.alive.pop(key)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if torch.is_tensor(leaf):
                self.see(leaf)
        return result


def peak_at_true_shapes(setup: Setup, config: dict) -> int:
    """Bytes a step holds at most at shapes that no memory here could hold: nothing is allocated."""
    with torch.device("meta"):
        model = build(setup, config)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for kind in (module._parameters, module._buffers):
                for name, value in kind.items():
                    if value is not None:
                        empty = torch.empty(value.shape, dtype=value.dtype)
                        is_trained = isinstance(value, torch.nn.Parameter) and value.requires_grad
                        if kind is module._parameters:
                            empty = torch.nn.Parameter(empty, requires_grad=is_trained)
                        kind[name] = empty
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        with Tracker() as tracker:
            for parameter in model.parameters():
                tracker.see(parameter)
                if parameter.grad is not None:
                    tracker.see(parameter.grad)
            forward(model, setup).backward()
    return tracker.peak


def optimizer_for(model: torch.nn.Module, setup: Setup) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-5, fused=setup.optim == "adamw_torch_fused")


def held(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of weights, adapters, gradients and optimizer state as they lie in memory."""
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    adapted = any("lora_" in name for name, _ in model.named_parameters())
    frozen = [p for p in model.parameters() if id(p) not in trained or not adapted]
    own = [p for p in model.parameters() if id(p) in trained]
    state = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    return {
        "weights": sum(p.nbytes for p in frozen),
        "adapters": sum(p.nbytes for p in own) if adapted else 0,
        "gradients": sum(p.grad.nbytes for p in own if p.grad is not None),
        "optimizer": sum(v.nbytes for v in state),
    }


def peak_bytes(work) -> int:
    """The most bytes that CPU tensors made by `work()` held at once, on top of what was there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def kept_bytes(model: torch.nn.Module, setup: Setup) -> int:
    """Bytes that autograd keeps of a forward pass: storages of saved tensors that are no parameters."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = forward(model, setup)
    assert loss.requires_grad
    return sum(found.values())
