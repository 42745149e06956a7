"""From rows to token rows: encode, label, drop over-long rows by count, pack, cache.

Every span is encoded on its own and the ids are joined, so the tokens of a training prompt are, by
construction, the tokens the evaluation prompt is given; a reply that begins with a newline cannot
melt into the template's last newline. Labels are the ids of learned spans and -100 elsewhere.
"""

import errno
import hashlib
import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from longcot import chat, rows
from longcot.errors import RowError
from longcot.lengths import most_samples, packed_length
from longcot.recipe import Recipe, resolved

CHUNK = 256  # rows tokenised together; the tokenizer spreads a chunk over all cores
PACK_WINDOW = 50_000  # rows packed together; far above TRL's 1,000, so rows fill up completely
IGNORED = -100


@dataclass
class Report:
    """What became of the rows; printed before training and kept in the run's record."""

    read: Counter = field(default_factory=Counter)  # by source
    over_long: Counter = field(default_factory=Counter)  # by source
    malformed: Counter = field(default_factory=Counter)  # by "source: fault"
    examples: list[str] = field(default_factory=list)  # first dropped rows, with file:line
    lengths: list[int] = field(default_factory=list)  # tokens of every kept row
    lost_tokens: int = 0  # of over-long rows
    learned_tokens: int = 0
    systems: list[str] = field(default_factory=list)  # distinct system prompts of the rows, <= 3
    packed_rows: int = 0
    packed_length: int = 0  # tokens that fit into a packed row
    max_length: int = 0

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def packing_efficiency(self) -> float:
        """Share of the packed rows' positions that hold a token."""
        return self.tokens / (self.packed_rows * self.packed_length) if self.packed_rows else 0.0

    @property
    def samples_per_row(self) -> float:
        return len(self.lengths) / self.packed_rows if self.packed_rows else 1.0

    def lines(self) -> Iterator[str]:
        """The report as text, one line per fact and source."""
        kept = len(self.lengths)
        yield f"rows read {sum(self.read.values()):,}, kept {kept:,}, tokens {self.tokens:,}"
        for source, count in sorted(self.read.items()):
            yield f"  {source}: read {count:,}, over-long {self.over_long[source]:,}"
        if self.lost_tokens:
            lost = sum(self.over_long.values())
            yield f"dropped whole, never cut: {lost:,} rows above {self.max_length:,} tokens"
        for what, count in sorted(self.malformed.items()):
            yield f"dropped as malformed: {count:,} x {what}"
        yield from (f"  e.g. {example}" for example in self.examples)
        if self.packed_rows:
            yield (
                f"packed into {self.packed_rows:,} sequences of {self.packed_length:,} tokens: "
                f"{self.samples_per_row:.2f} samples each, {self.packing_efficiency:.1%} full"
            )


def encode(spans: list[chat.Span], tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """(ids, labels) of one row, each of shape (T,), int32."""
    return next(_encode_chunk([spans], tokenizer))


def _encode_chunk(
    chunk: list[list[chat.Span]], tokenizer: Any
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    texts = [span.text for spans in chunk for span in spans]
    # Prompts of one data set share their beginning; the tokenizer's own batch call runs on all cores.
    encoded = iter(tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    for spans in chunk:
        pieces = [np.asarray(next(encoded).ids, dtype=np.int32) for _ in spans]
        labels = [
            ids if span.learn else np.full(len(ids), IGNORED, dtype=np.int32)
            for span, ids in zip(spans, pieces, strict=True)
        ]
        yield np.concatenate(pieces), np.concatenate(labels)


def encode_rows(
    traces: Iterable[rows.Trace], template: chat.Template, recipe: Recipe, report: Report
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (ids, labels) of every row that may be trained on; the rest is counted in `report`.

    Raises RowError at the first over-long or malformed row if the recipe says `stop`.
    """
    data, format = recipe.data, recipe.chat.format
    report.max_length = data.max_length
    systems: dict[str, None] = {}
    for chunk in _chunks(_sound(traces, recipe, report), CHUNK):
        spans = [chat.render(trace, template, format, recipe.chat.system) for trace in chunk]
        for trace, (ids, labels) in zip(
            chunk, _encode_chunk(spans, template.tokenizer), strict=True
        ):
            systems.setdefault(trace.system or "", None)
            if len(ids) > data.max_length:
                message = (
                    f"{trace.where}: {len(ids):,} tokens, above data.max_length {data.max_length:,}"
                )
                if data.over_long == "stop":
                    raise RowError(f"{message}; raise it, or set data.over_long: drop")
                report.over_long[trace.source] += 1
                report.lost_tokens += len(ids)
                _keep_example(report, message)
                continue
            report.lengths.append(len(ids))
            report.learned_tokens += int((labels != IGNORED).sum())
            yield ids, labels
    report.systems = list(systems)[:3]


def _sound(traces: Iterable[rows.Trace], recipe: Recipe, report: Report) -> Iterator[rows.Trace]:
    for trace in traces:
        report.read[trace.source] += 1
        fault = chat.fault(trace, recipe.chat.format)
        if fault is None:
            yield trace
        elif recipe.data.malformed == "stop":
            raise RowError(
                f"{trace.where}: {fault} (chat.format is {recipe.chat.format}); mend the row, or set "
                "data.malformed: drop to leave such rows out and count them"
            )
        else:
            report.malformed[f"{trace.source}: {fault}"] += 1
            _keep_example(report, f"{trace.where}: {fault}")


def _keep_example(report: Report, message: str) -> None:
    if len(report.examples) < 3:
        report.examples.append(message)


def _chunks(items: Iterable, size: int) -> Iterator[list]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


# ---- preparing a recipe's training set, once


def prepare(
    recipe: Recipe,
    template: chat.Template,
    cache: Path,
    progress: Callable[[Iterable], Iterable] = iter,
    processes: int = 1,
) -> tuple[Any, Report]:
    """The recipe's training set as a `datasets.Dataset`, encoded, packed for `processes`, its report.

    Columns: input_ids, labels (int32 lists) and, when packed, seq_lengths. The result is cached
    under a hash of data, tokenizer, chat and data sections and of this code; it is written to a
    temporary folder and renamed, so a killed preparation leaves nothing behind that would be read,
    and runs that start together do not disturb each other.
    """
    from datasets import Dataset

    samples = most_samples(recipe.train, processes) if recipe.train else math.inf
    folder = cache / cache_key(recipe, template)
    if recipe.data.packing and _is_packed_otherwise(folder, samples):
        folder = folder.with_name(f"{folder.name}-{samples:g}")
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=cache, prefix=f".{folder.name}."))
        try:
            _fill(unfinished, recipe, template, samples, progress)
            unfinished.chmod(0o755)
            try:
                unfinished.replace(folder)
            except OSError as error:  # another run was faster: its rows are these
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    report = _read_report(folder)
    file = folder / ("packed.arrow" if recipe.data.packing else "rows.arrow")
    return Dataset.from_file(str(file)), report


def _read_report(folder: Path) -> Report:
    report = Report(**json.loads((folder / "report.json").read_text(encoding="utf-8")))
    for name in ("read", "over_long", "malformed"):
        setattr(report, name, Counter(getattr(report, name)))
    return report


def _is_packed_otherwise(folder: Path, samples: float) -> bool:
    """Whether these rows lie there packed for another number of processes, and it matters."""
    if not folder.exists():
        return False
    report = _read_report(folder)
    return report.packed_length != packed_length(report.lengths, report.max_length, samples)


def _fill(
    folder: Path, recipe: Recipe, template: chat.Template, samples: float, progress: Callable
) -> None:
    """Encode and pack a recipe's rows into files of `folder`, the report last."""
    data, report = recipe.data, Report()
    traces = rows.read_traces(data.path, data.revision, data.max_samples)
    write_arrow(encode_rows(progress(traces), template, recipe, report), folder / "rows.arrow")
    if not report.lengths:
        raise RowError(f"{data.path}: no row left to train on; " + "; ".join(report.lines()))
    if data.packing:
        report.packed_length = packed_length(report.lengths, data.max_length, samples)
        report.packed_rows = _pack(folder, report.packed_length)
    rows.write_json(folder / "report.json", vars(report))


def write_arrow(encoded: Iterable[tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Stream (ids, labels) pairs into an Arrow file without holding more than one chunk."""
    import pyarrow as pa

    schema = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())})

    def column(arrays: Sequence[np.ndarray]) -> pa.Array:
        offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
        return pa.ListArray.from_arrays(offsets, np.concatenate(arrays))

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for chunk in _chunks(encoded, CHUNK):
            ids, labels = zip(*chunk, strict=True)
            writer.write_batch(pa.record_batch([column(ids), column(labels)], schema=schema))


def _pack(folder: Path, length: int) -> int:
    """TRL's best-fit-decreasing packing over the whole set; returns the number of packed rows."""
    from datasets import Dataset
    from trl import pack_dataset

    dataset = Dataset.from_file(str(folder / "rows.arrow"))
    options = {
        "batch_size": PACK_WINDOW,
        "cache_file_name": str(folder / "packed.arrow"),
        "load_from_cache_file": False,
        "desc": "packing",
    }
    packed = pack_dataset(dataset, length, strategy="bfd", map_kwargs=options)
    (folder / "rows.arrow").unlink()
    return len(packed)


def cache_key(recipe: Recipe, template: chat.Template) -> str:
    """Hash of everything the encoded rows depend on."""
    tokenizer = template.tokenizer
    parts = [
        rows.hash_source(recipe.data.path, recipe.data.revision),
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.chat_template,
        template.end_of_turn,
        json.dumps([resolved(recipe)[section] for section in ("chat", "data")], sort_keys=True),
        *(
            Path(__file__).with_name(f"{room}.py").read_text()
            for room in ("batches", "chat", "lengths", "rows")
        ),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
