"""How long the rows are: read from the data where it is there, a stated assumption where it is not."""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

from longcot import rows
from longcot.errors import RowError
from longcot.recipe import Recipe, Train

# Rows of sets that live on the hub; any other is taken to have as many as the papers'.
KNOWN = {"NovaSky-AI/Sky-T1_data_17k": 16401, "bespokelabs/Bespoke-Stratos-17k": 16710}
OTHERWISE = 17000
# Long chains of thought: lognormal, cut off at 16,384 tokens, which leaves a mean of 6,000.
MEDIAN, SPREAD, LONGEST, MEAN = 4801, 0.75, 16384, 6000
WHOLE = 8_000_000  # characters tokenised in full; of more, every n-th row
TURN = 6  # tokens a chat template adds to a turn
CHARACTERS = 2.8  # of a token in long chains of thought (Qwen2.5's; 2.5 to 3.3 by model and task)


@dataclass(frozen=True)
class Lengths:
    """Tokens of every row that is kept, and what is known about them."""

    kept: tuple[int, ...]
    over_long: int  # rows above max_length, which are dropped
    sequences: int  # rows of the training set as the model sees them, packed or not
    longest: int  # tokens of the longest sequence
    source: str

    @property
    def tokens(self) -> int:
        """Tokens of one epoch."""
        return sum(self.kept)

    @property
    def mean(self) -> float:
        """Tokens of a mean row."""
        return self.tokens / len(self.kept)

    @property
    def weighted(self) -> float:
        """The mean length of the row a token lies in: what attention's work is proportional to."""
        return sum(n * n for n in self.kept) / self.tokens

    @property
    def samples_per_sequence(self) -> float:
        """Rows in one packed sequence, on average."""
        return len(self.kept) / self.sequences


def measure(recipe: Recipe, given: Sequence[int] | None = None) -> Lengths:
    """The recipe's row lengths, packed for one process: `given`, else from its data file, else (data
    on the hub) assumed.

    Raises RowError for a local file that is not there, and where `data.max_length` leaves no row.
    """
    data = recipe.data
    if given is not None:
        found, source = list(given), "lengths as given"
    else:
        found, source = _from_data(recipe) or (assumed(_count(recipe)), _assumption(recipe))
    kept = tuple(n for n in found if n <= data.max_length)
    if not kept:
        raise RowError(
            f"{data.path}: no row left to train on: the shortest of {len(found):,} has "
            f"{min(found):,} tokens, above data.max_length {data.max_length:,} ({source}); raise it"
            if found
            else f"{data.path}: holds no rows"
        )
    unpacked = Lengths(kept, len(found) - len(kept), len(kept), max(kept), source)
    return packed_for(unpacked, recipe, 1)


def packed_for(found: Lengths, recipe: Recipe, processes: int) -> Lengths:
    """The same rows as so many processes will be given them."""
    if not recipe.data.packing or not recipe.train:
        return found
    samples = most_samples(recipe.train, processes)
    length = packed_length(found.kept, recipe.data.max_length, samples)
    return replace(found, sequences=pack(found.kept, length), longest=length)


def assumed(count: int) -> list[int]:
    """`count` lengths of the assumed distribution, the same at every call."""
    places = (NormalDist().inv_cdf((i + 0.5) / count) for i in range(count))
    return [round(min(LONGEST, MEDIAN * math.exp(SPREAD * place))) for place in places]


def most_samples(train: Train, processes: int) -> float:
    """Samples that a packed sequence may hold for steps of `global_batch_size` to be possible."""
    return train.global_batch_size / (processes * train.per_device_train_batch_size)


def packed_length(lengths: Sequence[int], max_length: int, samples: float) -> int:
    """Tokens of a packed sequence: `max_length`, or fewer where rows are so short that more than
    `samples` would share one; never fewer than the longest row has."""
    room = samples * sum(lengths) / len(lengths)
    if room >= max_length:
        return max_length
    length = max(*lengths, math.ceil(room))
    while length < max_length and len(lengths) < 0.9 * samples * pack(lengths, length):
        length = math.ceil(1.02 * length)  # rows of few different lengths leave gaps
    return min(length, max_length)


def pack(lengths: Sequence[int], capacity: int) -> int:
    """How many sequences best-fit-decreasing packing makes, as TRL packs."""
    spaces: list[int] = []  # free places of the open sequences, ascending
    for length in sorted(lengths, reverse=True):
        at = bisect_left(spaces, length)
        room = spaces.pop(at) if at < len(spaces) else capacity
        insort(spaces, room - length)
    return len(spaces)


def _count(recipe: Recipe) -> int:
    known = KNOWN.get(recipe.data.path, OTHERWISE)
    return min(known, recipe.data.max_samples or known)


def _assumption(recipe: Recipe) -> str:
    return f"assumed, mean {MEAN:,} cut off at {LONGEST:,}: {recipe.data.path} lies on the hub"


def _from_data(recipe: Recipe) -> tuple[list[int], str] | None:
    """Lengths by the model's own tokenizer, by characters without it, None for data on the hub."""
    data = recipe.data
    if not rows.is_local(data.path):
        return None
    texts = [
        "\n".join([trace.system or "", trace.thinking or "", *(text for _, text in trace.turns)])
        for trace in rows.read_traces(data.path, data.revision, data.max_samples)
    ]
    turns = TURN * 2
    file = Path(recipe.model.model_name_or_path) / "tokenizer.json"
    if not file.is_file():
        file = _cached_tokenizer(recipe)
    if file is None:
        source = f"of {data.path}, at {CHARACTERS} characters a token: the tokenizer is not here"
        return [round(len(text) / CHARACTERS) + turns for text in texts], source
    from tokenizers import Tokenizer

    every = 1 + sum(map(len, texts)) // WHOLE
    sample = Tokenizer.from_file(str(file)).encode_batch_fast(
        texts[::every], add_special_tokens=False
    )
    counts = [len(found.ids) + turns for found in sample]
    if every == 1:
        return counts, f"of {data.path}, tokenised without its chat template"
    ratio = sum(counts) / sum(map(len, texts[::every]))
    source = f"of {data.path}, by its characters and {len(counts):,} tokenised rows"
    return [max(1, round(len(text) * ratio)) for text in texts], source


def _cached_tokenizer(recipe: Recipe) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    name, revision = recipe.model.model_name_or_path, recipe.model.model_revision
    try:
        found = try_to_load_from_cache(name, "tokenizer.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
