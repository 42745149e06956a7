"""Speed side by side with the libraries' own ways, as ratios within one run.

python -m tests.bench [startup|encode|train|cache|grade|overhead|split ...] [--rows 400] [--rounds 5]

startup  `train.py --help` and a recipe error, each against `import torch`
encode   our encoding + packing against SFTTrainer's own preparation, same texts, 6k tokens a row
train    tokens/s of train.py's trainer against a plain SFTTrainer script, same packed rows
cache    a second preparation, read from the cache
grade    the verdicts of stored answers against math-verify, one call after another, on the same pairs
overhead what eval.py adds to its engine: prompts, files flushed answer by answer, verdicts, numbers
split    a thought into steps against a plain cut at blank lines, and its curve over the length

Absolute seconds are printed for orientation only; this machine's neighbours are not constant.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench_eval import grade, overhead
from tests.timing import alternate, seconds

ROOT = Path(__file__).parent.parent
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts = {"startup": startup, "encode": encode, "cache": cache, "train": train, "grade": grade,
             "overhead": overhead, "split": split}  # fmt: skip
    parser.add_argument("parts", nargs="*", default=list(parts))
    parser.add_argument("--rows", type=int, default=400, help="long rows of the encode part")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--answers", type=Path, nargs="+", help="stored answers of the grade part")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    for part in arguments.parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[part](Path(folder), arguments)


def startup(folder: Path, arguments: argparse.Namespace) -> None:
    def command(*words: str) -> Callable[[], float]:
        return lambda: seconds(
            lambda: subprocess.run(
                [sys.executable, *words], cwd=ROOT, capture_output=True, check=False
            )
        )

    torch = command("-c", "import torch")
    for words in (["train.py", "--help"], ["train.py", "recipes/rehearsal.yaml", "lora.rnak=1"]):
        figures = alternate(command(*words), torch, arguments.rounds)
        print(f"startup {' '.join(words)} (peer: import torch): {figures}")


def long_rows(count: int) -> list[dict]:
    """`count` long-CoT rows of about 6,000 tokens each, from the rehearsal's generator."""
    from data_prep import rehearsal

    made = [
        (rehearsal.render_problem(problem), "\n\n".join(steps))
        for problem, steps in rehearsal.draw_training(count + 40, 0)
    ]
    rows = []
    for index in range(count):
        thought = "\n\n".join(steps for _, steps in made[index : index + 36])
        reply = (
            f"<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n"
            "<|begin_of_solution|>\n\ndone\n\n<|end_of_solution|>"
        )
        rows.append({"prompt": made[index][0], "completion": reply})
    return rows


def prepared(folder: Path, rows: list[dict]):
    """(recipe, template) reading `rows` from a file in `folder`, at 16,384 tokens a sequence."""
    from longcot import chat, models
    from longcot.recipe import load_recipe
    from longcot.rows import write_jsonl

    write_jsonl(folder / "rows.jsonl", rows)
    overrides = [f"data.path={folder / 'rows.jsonl'}", "data.max_length=16384"]
    recipe = load_recipe(ROOT / "recipes/rehearsal.yaml", overrides)
    return recipe, chat.read_template(models.load_tokenizer(recipe.model))


def encode(folder: Path, arguments: argparse.Namespace) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from longcot import batches

    rows = long_rows(arguments.rows)
    recipe, template = prepared(folder, rows)
    model = AutoModelForCausalLM.from_pretrained(ROOT / "data_prep/rehearsal_base")
    counter = iter(range(1000))

    def ours() -> float:
        return seconds(lambda: batches.prepare(recipe, template, folder / f"cache{next(counter)}"))

    def peer() -> float:
        turns = [
            {
                "prompt": [{"role": "user", "content": row["prompt"]}],
                "completion": [{"role": "assistant", "content": row["completion"]}],
            }
            for row in rows
        ]
        settings = SFTConfig(
            str(folder / "peer"), max_length=16384, packing=True, use_cpu=True, bf16=False,
            dataset_num_proc=os.cpu_count(), report_to="none",
        )  # fmt: skip
        data = Dataset.from_list(turns)
        return seconds(
            lambda: SFTTrainer(
                model, settings, train_dataset=data, processing_class=template.tokenizer
            )
        )

    tokens = batches.prepare(recipe, template, folder / "count")[1].tokens
    figures = alternate(ours, peer, arguments.rounds)
    print(f"encode {len(rows)} rows of {tokens / len(rows):,.0f} tokens: {figures}")


def split(folder: Path, arguments: argparse.Namespace) -> None:
    from longcot.segment import split_steps

    thought = "\n\n".join(row["completion"] for row in long_rows(100))
    figures = alternate(
        lambda: seconds(lambda: split_steps(thought)),
        lambda: seconds(lambda: re.split(r"\n\s*\n", thought)),
        arguments.rounds,
    )
    print(f"split {len(thought) / 1e6:.1f} M characters (peer: blank lines): {figures}")
    for length in (10_000, 100_000, 1_000_000):
        taken = min(
            seconds(lambda: split_steps(thought[:length]))  # noqa: B023
            for _ in range(arguments.rounds)
        )
        print(f"split {length:,} characters: {length / taken / 1e6:.1f} M characters/s")


def cache(folder: Path, arguments: argparse.Namespace) -> None:
    from longcot import batches

    recipe, template = prepared(folder, long_rows(arguments.rows))
    first = seconds(lambda: batches.prepare(recipe, template, folder / "cache"))
    again = [
        seconds(lambda: batches.prepare(recipe, template, folder / "cache"))
        for _ in range(arguments.rounds)
    ]
    size = (folder / "rows.jsonl").stat().st_size / 2**20
    print(
        f"cache {size:.0f} MiB of rows: first {first:.2f} s, again {statistics.median(again):.3f} s"
    )


def train(folder: Path, arguments: argparse.Namespace) -> None:
    """Both sides in processes of their own, so neither warms the other's caches."""
    from longcot import batches, chat, models
    from longcot.recipe import load_recipe

    script = folder / "peer.py"
    script.write_text(PEER, encoding="utf-8")
    recipe = load_recipe("recipes/rehearsal.yaml")
    template = chat.read_template(models.load_tokenizer(recipe.model))
    packed = Path("outputs/cache") / batches.cache_key(recipe, template) / "packed.arrow"
    counter = iter(range(1000))

    def ours() -> float:
        name = f"bench-{os.getpid()}-{next(counter)}"
        subprocess.run(
            [sys.executable, "train.py", "recipes/rehearsal.yaml", "train.max_steps=80", "--run-name", name],
            cwd=ROOT, check=True, capture_output=True,
        )  # fmt: skip
        record = ROOT / f"results/runs/{name}.json"
        taken = json.loads(record.read_text(encoding="utf-8"))["train"]["seconds"]
        record.unlink()
        subprocess.run(["rm", "-rf", str(ROOT / "outputs" / name)], check=True)
        return taken

    def peer() -> float:
        done = subprocess.run(
            [sys.executable, str(script), str(ROOT / packed), str(folder / f"out{next(counter)}")],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return float(done.stdout.split()[-1])

    print(f"train 80 steps: {alternate(ours, peer, arguments.rounds)}")


PEER = '''
"""A plain TRL + PEFT script on the same packed rows, with the same hyper-parameters."""
import sys, time
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

settings = SFTConfig(
    sys.argv[2], packing=True, max_length=1024, dataset_kwargs={"skip_prepare_dataset": True},
    per_device_train_batch_size=1, gradient_accumulation_steps=1, max_steps=80, learning_rate=8e-3,
    lr_scheduler_type="cosine", warmup_steps=20, adam_beta2=0.98, use_cpu=True, bf16=False,
    gradient_checkpointing=False, report_to="none", seed=0,
)
trainer = SFTTrainer(
    "data_prep/rehearsal_base", settings, train_dataset=Dataset.from_file(sys.argv[1]),
    processing_class=AutoTokenizer.from_pretrained("data_prep/rehearsal_base"),
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
)
started = time.monotonic()
trainer.train()
print(time.monotonic() - started)
'''


if __name__ == "__main__":
    main()
