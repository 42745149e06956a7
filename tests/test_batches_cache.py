"""Prepared rows are read again as they are, and made anew when anything changed."""

import threading

import pytest
from batch_cases import document, documents
from conftest import CHATML, sharegpt, thought

from longcot import batches, chat, rows
from longcot.batches import prepare
from longcot.errors import RowError
from longcot.recipe import load_recipe


@pytest.fixture
def prepared(template, write_recipe, write_rows, tmp_path):
    path = write_rows([document(n) for n in range(9)])
    recipe = load_recipe(write_recipe(data={"path": str(path), "packing": True}))
    dataset, report = prepare(recipe, template, tmp_path / "cache")
    return path, recipe, dataset.to_list(), report


def forbid(monkeypatch):
    def encoder(*arguments):
        raise AssertionError("encoded again")

    monkeypatch.setattr(batches, "_encode_chunk", encoder)


def test_a_second_preparation_reads_the_cache(prepared, template, tmp_path, monkeypatch):
    path, recipe, before, report = prepared
    forbid(monkeypatch)
    dataset, again = prepare(recipe, template, tmp_path / "cache")
    assert dataset.to_list() == before
    assert again == report and again.over_long["nobody"] == 0
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [
        batches.cache_key(recipe, template)
    ]


@pytest.mark.parametrize(
    "override",
    ["data.max_length=255", "data.packing=false", "data.malformed=stop", "data.max_samples=3",
     "chat.system=S", "chat.format=think"],
)  # fmt: skip
def test_a_changed_key_is_prepared_anew(prepared, template, tmp_path, monkeypatch, override):
    _, recipe, _, _ = prepared
    changed = load_recipe(recipe.path, [override])
    assert batches.cache_key(changed, template) != batches.cache_key(recipe, template)
    forbid(monkeypatch)
    with pytest.raises(AssertionError, match="encoded again"):
        prepare(changed, template, tmp_path / "cache")


def test_keys_that_change_no_row_keep_the_cache(prepared, template):
    _, recipe, _, _ = prepared
    same = load_recipe(recipe.path, ["train.seed=5", "train.learning_rate=1e-5", "lora.r=8"])
    assert batches.cache_key(same, template) == batches.cache_key(recipe, template)


def test_a_changed_row_template_or_tokenizer_is_prepared_anew(prepared, template, tmp_path):
    path, recipe, _, _ = prepared
    keys = {batches.cache_key(recipe, template)}
    path.write_text(path.read_text(encoding="utf-8").replace("0 a", "1 a"), encoding="utf-8")
    keys.add(batches.cache_key(recipe, template))
    tokenizer = template.tokenizer
    tokenizer.chat_template = CHATML.replace("assistant\n", "assistant\n\n")
    keys.add(batches.cache_key(recipe, chat.read_template(tokenizer)))
    tokenizer.add_tokens(["<new>"])
    keys.add(batches.cache_key(recipe, chat.read_template(tokenizer)))
    assert len(keys) == 4


@pytest.mark.parametrize("where", ["reading", "packing", "renaming"])
def test_a_preparation_that_dies_leaves_nothing_that_is_read(
    template, write_recipe, write_rows, tmp_path, monkeypatch, where
):
    path = write_rows([document(n) for n in range(9)])
    recipe = load_recipe(write_recipe(data={"path": str(path), "packing": True}))

    def dying(*arguments, **options):
        raise KeyboardInterrupt

    def dying_traces(traces):
        yield next(iter(traces))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "packing":
            patch.setattr(batches, "_pack", dying)
        if where == "renaming":
            patch.setattr(rows, "write_json", dying)
        patch.setattr(batches, "CHUNK", 1)
        with pytest.raises(KeyboardInterrupt):
            progress = dying_traces if where == "reading" else iter
            prepare(recipe, template, tmp_path / "cache", progress)
    assert not (tmp_path / "cache" / batches.cache_key(recipe, template)).exists()
    dataset, report = prepare(recipe, template, tmp_path / "cache")
    assert len(documents(dataset)) == len(report.lengths) == 9


def test_runs_that_start_together_do_not_disturb_each_other(
    template, write_recipe, write_rows, tmp_path
):
    path = write_rows([document(n) for n in range(9)])
    recipe = load_recipe(write_recipe(data={"path": str(path)}))
    meeting = threading.Barrier(2, timeout=20)
    found = []

    def progress(traces):
        meeting.wait()  # both have started before either has written anything
        return traces

    def one():
        found.append(prepare(recipe, template, tmp_path / "cache", progress)[0].to_list())

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0] == found[1]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_missing_data_is_told_before_anything_is_written(template, write_recipe, tmp_path):
    missing = str(tmp_path / "no.jsonl")
    recipe = load_recipe(write_recipe(data={"path": missing}))
    with pytest.raises(RowError) as caught:
        prepare(recipe, template, tmp_path / "cache")
    assert str(caught.value) == f"{missing}: no such file"
    assert not (tmp_path / "cache").exists()


def test_short_rows_are_packed_for_the_batch_and_the_processes(
    write_recipe, write_rows, template, tmp_path, monkeypatch
):
    """Steps of the stated batch stay possible; where packing is the same, so is the cache."""
    path = write_rows([sharegpt(f"{i}?", thought("x", str(i)), system="") for i in range(40)])
    short = {"data": {"path": str(path), "packing": True, "max_length": 1024}}
    recipe = load_recipe(write_recipe("short", **short, train={"global_batch_size": 8}))
    found = {n: prepare(recipe, template, tmp_path / "cache", processes=n)[1] for n in (1, 2, 4)}
    for n, report in found.items():
        assert 0.9 * 8 / n <= report.samples_per_row <= 1.1 * 8 / n
    assert found[4].packed_length < found[2].packed_length < found[1].packed_length < 1024
    roomy = load_recipe(write_recipe("roomy", **short, train={"global_batch_size": 96}))
    assert prepare(roomy, template, tmp_path / "cache", processes=4)[1].packed_length == 1024
    forbid(monkeypatch)
    assert {
        n: prepare(recipe, template, tmp_path / "cache", processes=n)[1] for n in (1, 2, 4)
    } == found
