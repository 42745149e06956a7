"""Train one recipe: LoRA, QLoRA or full fine-tuning on long chains of thought.

accelerate launch train.py recipes/lora32b.yaml [section.key=value ...]
python train.py recipes/lora32b.yaml --preview      look at the rows, load no model
python train.py recipes/lora32b.yaml --plan         memory, hours and cost, load nothing

Writes outputs/<run>/model (adapter or weights, tokenizer), outputs/<run>/checkpoint-N and
results/runs/<run>.json. The run's name is the recipe's file name, with overrides appended.
"""

import argparse
import time
from pathlib import Path

from longcot import plan, rows
from longcot.errors import RecipeError, plainly
from longcot.recipe import Recipe, load_recipe, run_name

OUTPUTS = Path("outputs")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe", help="a recipe file, e.g. recipes/rehearsal.yaml")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--run-name", help="default: the recipe's name with the overrides appended")
    parser.add_argument("--preview", action="store_true", help="print rows, mask, lengths; stop")
    plan.add_options(parser)
    parser.add_argument(
        "--benchmark", type=int, metavar="N", help="time N steps on random weights; stop"
    )
    parser.add_argument("--layers", type=int, help="of --benchmark: cut the model to so many")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = read_arguments()
    plan.check_options(arguments)

    # 1 recipe
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    if recipe.train is None:
        raise RecipeError(
            f"{recipe.path}: has no train section; score it with eval.py {recipe.path}"
        )
    if arguments.plan:
        print(plan.describe(recipe, arguments))
        return
    run = arguments.run_name or run_name(recipe)
    output = OUTPUTS / run
    if not arguments.preview and not arguments.benchmark:
        check_output(output, arguments.resume)

    # 2 machine: which processes and devices are really there
    from longcot.launch import check_launch, check_processes, quiet_libraries

    quiet_libraries()
    processes = check_launch(recipe, need_device=not arguments.preview)

    if arguments.benchmark:
        from longcot import speed

        path = OUTPUTS / "benchmarks" / f"{run}.json"
        found = speed.run(recipe, arguments.benchmark, path, arguments.layers)
        print(speed.line(found))
        return

    # 3 rows to token rows (cached; the first process prepares, the others read)
    from accelerate import PartialState
    from tqdm import tqdm

    from longcot import batches, chat, models

    started = time.monotonic()
    tokenizer = models.load_tokenizer(recipe.model, recipe.chat.pad_token)
    template = chat.read_template(tokenizer, recipe.chat.chat_template_path)
    chat.check_opening(template, recipe.chat.format)
    state = PartialState(cpu=recipe.train.use_cpu or arguments.preview)
    check_processes(processes, state.num_processes)
    with state.main_process_first():
        dataset, report = batches.prepare(
            recipe,
            template,
            OUTPUTS / "cache",
            lambda traces: tqdm(traces, "encoding", unit=" rows"),
            processes,
        )
    if arguments.preview:
        from longcot.preview import print_preview

        print_preview(dataset, report, tokenizer)
        return

    steps = plan.plan_steps(
        recipe.train,
        processes=processes,
        sequences=len(dataset),
        samples_per_sequence=report.samples_per_row,
    )
    if state.is_main_process:
        print("\n".join(report.lines()))
        print(f"rows ready in {time.monotonic() - started:.1f} s; {processes} process(es); {steps}")

    # 4 model and trainer
    from trl import SFTTrainer

    from longcot import callbacks, record
    from longcot import trainer as setup

    entry = record.start_record(run, recipe)  # commit and dirty as they are while this code runs
    data_hash = rows.hash_source(recipe.data.path, recipe.data.revision)
    stamp = callbacks.stamp(recipe, data_hash, processes)
    checkpoint = callbacks.newest_checkpoint(output) if arguments.resume else None
    if checkpoint:
        callbacks.check_stamp(checkpoint, stamp)
    settings = setup.settings(recipe, output, steps.accumulation)  # first: ZeRO-3 loads shards
    full = recipe.lora is None
    stop = callbacks.StopOnSignal()
    model = models.load_model(recipe.model, use_cpu=recipe.train.use_cpu, train_all=full)
    models.check_targets(model, recipe)
    setup.fuse(model, recipe)
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=models.lora_config(recipe),
        callbacks=[callbacks.Progress(), callbacks.MarkComplete(stamp), stop],
    )
    setup.shorten_recomputation(recipe, trainer)
    setup.balance(recipe, trainer, processes)
    trainer.add_callback(setup.AsLaunched(trainer))
    trainer.add_callback(setup.LongestFirst(trainer, lambda: plan.relief(recipe)))
    trainer.remove_callback(callbacks.PrinterCallback)  # Progress prints
    setup.check_isolation(recipe, trainer)
    models.unpack_4bit(trainer.model)
    if not trainer.is_deepspeed_enabled:  # ZeRO-3 wants one precision for base and adapters
        models.raise_adapters(trainer.model)
    if state.is_main_process:
        trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in trainer.model.parameters())
        print(f"{trainable:,} trainable of {total:,} stored parameters")

    # 5 training
    if state.is_main_process and checkpoint:
        callbacks.remove_unfinished(output)
        print(f"resuming from {checkpoint}")
    started = time.monotonic()
    with callbacks.clear_disk_errors(output):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - started
    stop.leave(trainer.state)

    # 6 record, then model: with the model in place the run counts as finished
    facts = {
        "made": f"{run} at {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}",
        "system": system_prompt(recipe, report),
        "format": recipe.chat.format,
    }
    if state.is_main_process:
        history = trainer.state.log_history
        rows.write_json(output / "log.json", history)
        entry["hashes"] = {
            "data": data_hash,
            "prompt": chat.hash_prompt(template, facts["system"] or ""),
        }
        entry["train"] = setup.summary(report, steps.samples, history, trainer, seconds)
        print(f"record {record.write_record(entry)}; saving {output / 'model'}")
    with callbacks.clear_disk_errors(output):
        if trainer.is_fsdp_enabled:  # its default writes shards that nothing here could load
            trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        models.save(trainer.save_model, tokenizer, output / "model", facts, state.is_main_process)


def check_output(output: Path, resume: bool) -> None:
    """An output folder is never overwritten and never silently resumed."""
    checkpoints = list(output.glob("checkpoint-*/complete"))
    if output.exists() and any(output.iterdir()) and not resume:
        raise RecipeError(
            f"{output} exists; continue it with --resume, take another --run-name, or remove it"
        )
    if resume and not checkpoints:
        raise RecipeError(
            f"--resume: {output} holds no complete checkpoint; remove it and start without --resume"
        )
    if resume and (output / "model").exists():
        raise RecipeError(f"--resume: {output}/model exists, this run is finished")


def system_prompt(recipe: Recipe, report) -> str | None:
    """The one system prompt to evaluate with, or None when the rows hold several."""
    if recipe.chat.system != "from_data":
        return recipe.chat.system
    return report.systems[0] if len(report.systems) == 1 else None


if __name__ == "__main__":
    with plainly():
        main()
