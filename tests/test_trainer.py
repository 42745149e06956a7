"""What is asked of TRL's trainer: settings that are the recipe's, proofs that leave no trace."""

from types import SimpleNamespace

import pytest
import torch
from train_cases import ROWS

from longcot import batches, chat, models, recompute
from longcot import trainer as setup
from longcot.errors import LaunchError
from longcot.recipe import load_recipe
from longcot.sharding import Launcher


@pytest.fixture
def make(tmp_path, tiny_model_dir, write_recipe, write_rows):
    """make(**changes) -> an SFTTrainer of the tiny model over the small rows, dropout on."""
    from trl import SFTTrainer

    def build(**train):
        data = write_rows(ROWS)
        recipe = load_recipe(
            write_recipe(
                model={"model_name_or_path": str(tiny_model_dir)},
                data={"path": str(data)},
                lora={"lora_dropout": 0.1},
                train={"max_steps": 3, **train},
            )
        )
        template = chat.read_template(models.load_tokenizer(recipe.model))
        dataset, _ = batches.prepare(recipe, template, tmp_path / "cache")
        trainer = SFTTrainer(
            model=models.load_model(recipe.model, use_cpu=True),
            args=setup.settings(recipe, tmp_path / "run", 2),
            train_dataset=dataset,
            processing_class=template.tokenizer,
            peft_config=models.lora_config(recipe),
        )
        trainer.recipe = recipe
        return trainer

    return build


def adapters(trainer) -> dict:
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.slow
def test_trying_the_longest_rows_changes_nothing_of_the_run(make):
    plain = make()
    plain.train()
    tried = make()
    lengths = sorted(map(len, tried.train_dataset["input_ids"]))
    state = torch.random.get_rng_state()
    assert setup.try_longest(tried) == lengths[-1]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.grad is None for p in tried.model.parameters())
    assert tried._total_train_tokens == 0
    tried.train()
    one, other = adapters(plain), adapters(tried)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [row.get("loss") for row in plain.state.log_history] == [
        row.get("loss") for row in tried.state.log_history
    ]


@pytest.mark.slow
def test_the_optimizers_memory_is_held_once_and_only_where_it_will_lie(make, monkeypatch):
    trainer = make()
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    held, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: held.append(a) or empty(*a, **k))
    trainer.create_optimizer()
    setup.try_longest(trainer)
    assert (8 * trained,) in held  # adamw_torch: two float32 each
    trainer.optimizer.state["x"] = {"step": 1}  # a resumed run has it already
    assert setup._optimizer_bytes(trainer) == 0
    trainer.optimizer.state.clear()
    away = Launcher(kind="fsdp2", processes=2, offload_parameters=True)
    monkeypatch.setattr(setup, "launcher_here", lambda: away)
    assert setup._optimizer_bytes(trainer) == 0


@pytest.mark.slow
def test_the_levers_of_a_recipe_reach_the_model(make):
    trainer = make(gradient_checkpointing=True, selective_checkpointing=True, unchecked_layers=1)
    recipe = trainer.recipe
    setup.shorten_recomputation(recipe, trainer)
    branch = [m for m in trainer.model.modules() if isinstance(m, recompute._BranchFirst)]
    assert len(branch) == 2  # the down_proj of each layer
    (found,) = (
        callback
        for callback in trainer.callback_handler.callbacks
        if isinstance(callback, recompute.Recompute)
    )
    assert (found.attention_kept, found.unchecked) == (True, 1)


@pytest.mark.slow
def test_as_many_long_rows_as_a_batch_holds(make, monkeypatch):
    trainer = make(per_device_train_batch_size=2)
    lengths = sorted(map(len, trainer.train_dataset["input_ids"]))
    asked = []
    real = trainer.data_collator
    trainer.data_collator = lambda rows: asked.append(rows) or real(rows)
    assert setup.try_longest(trainer) == lengths[-1] + lengths[-2]
    assert sorted(len(row["input_ids"]) for row in asked[0]) == lengths[-2:]


def test_a_row_that_does_not_fit_is_told_with_advice(monkeypatch):
    def too_long(trainer):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has")

    monkeypatch.setattr(setup, "try_longest", too_long)
    trainer = SimpleNamespace(is_deepspeed_enabled=False)
    first = setup.LongestFirst(trainer, lambda: "set data.max_length=8192")
    cuda = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    with pytest.raises(
        LaunchError,
        match=r"longest row does not fit .*CUDA out of memory.*set data.max_length=8192",
    ):
        first.on_train_begin(cuda, None, None)
    first.on_train_begin(SimpleNamespace(device=SimpleNamespace(type="cpu")), None, None)
    trainer.is_deepspeed_enabled = True
    first.on_train_begin(cuda, None, None)


@pytest.mark.parametrize(
    ("changes", "processes", "width"),
    [
        ({}, 1, None),
        ({}, 2, 2),
        ({"data": {"packing": False}}, 2, None),
        ({"model": {"model_name_or_path": "no/where"}}, 2, None),  # its work cannot be counted
    ],
)
def test_packed_rows_of_several_processes_are_put_in_order(
    write_recipe, tiny_model_dir, changes, processes, width
):
    path = {"model_name_or_path": str(tiny_model_dir)}
    changes = {"model": path, "data": {"packing": True}, **changes}
    added = []
    trainer = SimpleNamespace(
        train_dataset={"seq_lengths": [[9], [9, 9], [2]]}, add_callback=added.append
    )
    setup.balance(load_recipe(write_recipe(**changes)), trainer, processes)
    assert [callback.order.width for callback in added] == ([width] if width else [])
    for callback in added:
        assert callback.order.sorted == [1, 0, 2]  # dearest first
        loader = SimpleNamespace(set_sampler=added.append)
        callback.on_train_begin(None, None, None, train_dataloader=loader)
        assert added.pop() is callback.order


def test_a_run_that_is_not_as_launched_is_refused(monkeypatch):
    trainer = SimpleNamespace(model_wrapped=torch.nn.Linear(2, 2))
    setup.AsLaunched(trainer).on_train_begin(None, None, None)
    monkeypatch.setattr(setup, "launcher_here", lambda: Launcher(kind="ddp", processes=2))
    with pytest.raises(LaunchError, match="asked for data parallel over 2"):
        setup.AsLaunched(trainer).on_train_begin(None, None, None)


def test_settings_are_the_recipes(write_recipe, tmp_path):
    train = {"max_steps": 7, "weight_decay": 0.25, "max_grad_norm": 0.5, "warmup_steps": 0.1,
             "gradient_checkpointing": True, "activation_offloading": True, "optim": "adamw_8bit",
             "num_train_epochs": 3.5, "lr_scheduler_type": "cosine", "seed": 9, "logging_steps": 4,
             "save_steps": 6, "save_total_limit": 5}  # fmt: skip
    args = setup.settings(load_recipe(write_recipe(train=train)), tmp_path, 3)
    found = {name: getattr(args, name) for name in train}
    assert found == {
        **train,
        "lr_scheduler_type": found["lr_scheduler_type"],
        "optim": found["optim"],
    }
    assert found["lr_scheduler_type"] == "cosine" and found["optim"] == "adamw_8bit"
    assert (args.max_steps, args.gradient_accumulation_steps, args.use_cpu) == (7, 3, True)
    assert (args.adam_beta2, args.learning_rate, args.bf16) == (0.999, 1e-3, False)
    assert args.dataset_kwargs == {"skip_prepare_dataset": True} and args.report_to == []
