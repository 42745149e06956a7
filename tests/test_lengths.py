"""Row lengths: assumed, given, or read from the data, and how they pack."""

import json
import random

import pytest
from conftest import sharegpt, thought

from longcot import batches, chat, lengths, models
from longcot.errors import RowError
from longcot.recipe import load_recipe


def test_the_assumed_lengths_are_as_stated():
    drawn = lengths.assumed(17000)
    mean = sum(drawn) / len(drawn)
    assert mean == pytest.approx(6000, rel=0.002) and max(drawn) == 16384
    weighted = sum(n * n for n in drawn) / sum(drawn)
    assert weighted == pytest.approx(8800, rel=0.01)  # performance.md's L at this mean
    assert drawn == lengths.assumed(17000)


@pytest.mark.parametrize("capacity", [64, 500, 1024])
def test_packing_makes_as_many_sequences_as_trl(capacity):
    from datasets import Dataset
    from trl import pack_dataset

    random.seed(capacity)
    drawn = [random.randint(1, capacity) for _ in range(300)]
    rows = Dataset.from_dict({"input_ids": [[1] * n for n in drawn]})
    packed = pack_dataset(rows, capacity, strategy="bfd", map_kwargs={"batch_size": 1000})
    assert lengths.pack(drawn, capacity) == len(packed)


def test_packing_by_hand():
    assert lengths.pack([10], 10) == 1
    assert lengths.pack([6, 5, 4, 3, 2], 10) == 2
    assert lengths.pack([6, 6, 6], 10) == 3


@pytest.fixture
def recipe(write_recipe, write_rows, tiny_model_dir):
    rows = [
        sharegpt(f"what is {i}?", thought("\n\nso it is" * (1 + i % 40), f"\\boxed{{{i}}}"))
        for i in range(200)
    ]

    def make(**data):
        path = {"path": str(write_rows(rows))}
        base = {"model_name_or_path": str(tiny_model_dir)}
        return load_recipe(write_recipe(model=base, data={"max_length": 400, **path, **data}))

    return make


@pytest.mark.parametrize("whole", [True, False], ids=["every row", "a sample"])
def test_lengths_read_from_the_data_are_near_those_of_training(
    recipe, tmp_path, monkeypatch, whole
):
    asked = recipe(packing=True)
    if not whole:
        monkeypatch.setattr(lengths, "WHOLE", 4000)
    found = lengths.measure(asked)
    tokenizer = models.load_tokenizer(asked.model)
    _, report = batches.prepare(asked, chat.read_template(tokenizer), tmp_path / "cache")
    assert found.tokens == pytest.approx(report.tokens, rel=0.1)
    assert len(found.kept) == pytest.approx(len(report.lengths), rel=0.05)
    assert found.sequences == pytest.approx(report.packed_rows, rel=0.1)
    assert found.over_long + len(found.kept) == 200 and found.over_long > 0
    assert asked.data.path in found.source
    assert ("tokenised rows" in found.source) is not whole


def test_no_torch_is_needed_to_read_them(recipe):
    """The plan's start is a matter of a second; a tokenizer's file is enough."""
    import subprocess
    import sys

    asked = recipe()
    code = ("import sys; from longcot.recipe import load_recipe; from longcot import lengths;"
            f"print(lengths.measure(load_recipe({asked.path!r})).tokens);"
            "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == lengths.measure(asked).tokens


def test_given_lengths_are_taken_and_long_ones_dropped(recipe):
    found = lengths.measure(recipe(), [100, 300, 401])
    assert (found.kept, found.over_long, found.sequences) == ((100, 300), 1, 2)
    assert (found.mean, found.weighted, found.longest) == (200, 250, 300)
    packed = lengths.measure(recipe(packing=True), [100, 300, 400])
    assert (packed.sequences, packed.longest, packed.samples_per_sequence) == (2, 400, 1.5)


def test_data_on_the_hub_is_assumed_and_said(recipe):
    hub = lengths.measure(recipe(path="NovaSky-AI/Sky-T1_data_17k", max_length=16384))
    assert len(hub.kept) == 16401 and "assumed, mean 6,000" in hub.source
    assert "lies on the hub" in hub.source
    few = lengths.measure(recipe(path="owner/rows", max_length=16384, max_samples=50))
    assert len(few.kept) == 50


def test_a_local_file_that_is_not_there_is_refused(recipe):
    """Assumed rows would hide a misspelt path."""
    with pytest.raises(RowError, match=r"gone\.jsonl: no such file"):
        lengths.measure(recipe(path="data/gone.jsonl"))
    given = lengths.measure(recipe(path="data/gone.jsonl"), [30, 50])  # nothing is to be read
    assert given.kept == (30, 50)


def test_a_length_below_every_row_is_refused(recipe, write_rows):
    with pytest.raises(RowError, match=r"shortest of 200 has \d+ tokens, above .*max_length 10 "):
        lengths.measure(recipe(max_length=10))
    with pytest.raises(RowError, match="no row left to train on"):
        lengths.measure(recipe(), [500, 600])
    with pytest.raises(RowError, match="holds no rows"):
        lengths.measure(recipe(path=str(write_rows([], "empty.jsonl"))))


def test_a_local_file_without_its_tokenizer_is_read_by_characters(recipe, write_recipe):
    known = lengths.measure(recipe())
    path = {"path": recipe().data.path, "max_length": 400}
    found = lengths.measure(
        load_recipe(write_recipe(model={"model_name_or_path": "a/b"}, data=path))
    )
    assert "characters a token: the tokenizer is not here" in found.source
    assert found.over_long + len(found.kept) == 200
    assert 0.3 < found.mean / known.mean < 1.5  # this tokenizer knows hardly a word


def test_a_thought_of_its_own_field_counts(write_recipe, tmp_path, tiny_model_dir):
    rows = []
    for reasoning in (None, "so " * 50):
        reply = {"role": "assistant", "content": "4", "reasoning_content": reasoning}
        rows.append({"messages": [{"role": "user", "content": "2+2?"}, reply]})
    path = tmp_path / "messages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    base = {"model_name_or_path": str(tiny_model_dir)}
    asked = load_recipe(write_recipe(model=base, data={"path": str(path)}))
    short, long = lengths.measure(asked).kept
    assert long > short + 100


@pytest.mark.parametrize(
    ("drawn", "samples", "expected"),
    [
        ([6000] * 10, 12, 16384),  # 32B on eight GPUs: far from the limit
        ([100] * 30, 4, 400),  # short rows, small batch: four in a sequence, not 163
        ([100] * 30 + [900], 4, 900),  # never too short for the longest row
        ([100] * 30, 0.5, 100),
        ([98, 100, 100, 100] * 8, 2, 203),  # 199 would hold two of them only where one is a 98
        ([100] * 3, 163.84, 16384),
    ],
)
def test_short_rows_share_a_sequence_only_as_far_as_the_batch_allows(drawn, samples, expected):
    assert lengths.packed_length(drawn, 16384, samples) == expected
