"""A plan as text and as plain data."""

import json
import re

import pytest
from conftest import ROOT

from longcot.plan import make_plan
from longcot.recipe import load_recipe
from longcot.sharding import Launcher

PLAIN = ("train.optim=adamw_torch_fused", "train.use_liger_kernel=false",
         "train.selective_checkpointing=false", "train.unchecked_layers=0",
         "train.activation_offloading=false")  # fmt: skip


def planned(name="qlora32b", *overrides, **options):
    return make_plan(load_recipe(ROOT / f"recipes/{name}.yaml", overrides), **options)


ROW = re.compile(r"^  ([a-z ]+?) {2,}([\d,]+\.\d)(?= |$)", re.MULTILINE)


def table(text: str) -> dict[str, float]:
    """The memory rows: kind and number."""
    memory = text.partition("\nrun\n")[0]
    return {kind: float(number.replace(",", "")) for kind, number in ROW.findall(memory)}


def test_the_first_line_is_the_verdict():
    fits = planned("qlora32b", *PLAIN)
    assert re.fullmatch(r"fits: \d+\.\d of 83\.0 GB", fits.text().splitlines()[0])
    lines = planned("lora32b", *PLAIN).text().splitlines()
    assert re.match(r"does not fit: \d+\.\d of 83\.0 GB; set \w+\.\w+=\w+.* \(\d+\.\d GB", lines[0])
    assert lines[1].startswith("  or 2 x H100 SXM 80 GB, FSDP2")


def test_the_rows_add_up_to_the_total():
    for name, options in (("qlora32b", {}), ("lora32b", {"gpus": 8}), ("full32b", {"gpus": 8})):
        rows = table(planned(name, **options).text())
        total = rows.pop("total")
        rows.pop("host memory", None)
        assert sum(rows.values()) == pytest.approx(total, abs=0.05 * (len(rows) + 1))


def test_a_reader_finds_everything():
    text = planned("qlora32b", tokens_per_second=2800).text()
    for word in ("NF4", "536,870,912 trained", "built-in table", "16,401 in", "packed sequences",
                 "assumed, mean 6,000", "optimizer steps", "GFLOP/token executed", "2,800 tokens/s",
                 "given", "GPU-hours", "per GPU-hour"):  # fmt: skip
        assert word in text, word
    assert "predicted, MFU" in planned("qlora32b").text()
    assert len(text.splitlines()) <= 25
    assert all(len(line) <= 170 for line in text.splitlines())


def test_room_for_speed_is_told_with_what_it_buys():
    text = planned("qlora32b", *PLAIN).text()
    assert re.search(
        r"room for train\.selective_checkpointing=true train\.unchecked_layers=\d+ "
        r"\(predicted \d+% faster\)",
        text,
    )


def test_small_models_are_told_in_megabytes():
    text = planned("rehearsal", "data.path=owner/rows").text()
    assert "in MB" in text and table(text)["total"] > 10
    assert "this machine's memory" in text and "nothing to predict it from" in text


def test_dropped_rows_are_told():
    text = planned("qlora32b", "data.max_length=8192").text()
    assert re.search(r"dropped +[\d,]+ rows above data\.max_length \(2\d\.\d%\)", text)


def test_a_narrow_fit_and_a_host_are_told():
    zero = Launcher(kind="zero3", processes=8, offload_parameters=True, offload_optimizer=True)
    text = planned("full32b", launcher=zero).text()
    assert "ZeRO-3, parameters and optimizer on the host" in text
    assert re.search(r"host memory +5\d\d\.\d  on each node", text)
    assert "predicted, without the host's part" in text
    tight = planned("lora32b", *PLAIN, "train.optim=adamw_8bit", "train.activation_offloading=true")
    assert tight.text().startswith("fits: 8") and "narrowly" in tight.text().splitlines()[0]


def test_the_json_holds_what_the_text_says():
    plan = planned("lora32b", *PLAIN)
    told = json.loads(plan.json())
    assert told["verdict"][0] == plan.text().splitlines()[0] and told["fits"] is False
    assert told["memory"]["total"] == pytest.approx(sum(told["memory"]["kinds"].values()))
    assert told["advice"]["changes"] == list(plan.advice.changes)
    assert told["parameters"] == {"base": 32_763_876_352, "trained": 536_870_912}
    assert told["work"]["executed_to_model"] == pytest.approx(
        told["work"]["executed"] / told["work"]["model"]
    )
    assert told["gpu_hours"] * told["price"] == pytest.approx(told["cost"])
    assert told["rows"]["source"] in plan.text() and told["steps"]["total"] > 0
