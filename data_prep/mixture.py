"""Data recipes: where questions come from, who answers them, which rows stay. As strict as recipes/.

A section with a `path` is a source of questions (`sources.Source`); the other sections are those of
`Mixture`. `difficulty` absent: no question is labelled. `rewrite` absent: the teacher's own thought and
solution are taken as they are (R1-style). Keys with a default move speed and cost, never a row.
"""

import typing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from data_prep.sources import Source, broken_rules
from longcot.client import Endpoint
from longcot.errors import RecipeError
from longcot.strict import apply_override, build_section, read_recipe, read_sections


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model behind OpenAI-compatible URLs and how it is sampled."""

    model: str
    temperature: float
    top_p: float
    max_tokens: int  # generated tokens; an answer cut there is a reject, never data
    seed: int
    urls: tuple[str, ...] = ("http://127.0.0.1:8000/v1",)
    api_key_env: str | None = None  # the environment variable that holds the key
    concurrency: int = 64  # calls in flight over all URLs
    timeout: float = 3600.0  # seconds for one call, its thinking included
    max_retries: int = 5
    dollars_in: float | None = None  # per million prompt tokens
    dollars_out: float | None = None  # per million generated tokens


@dataclass(frozen=True, kw_only=True)
class Teacher(Asked):
    system: str  # "" for none
    instruction: bool  # ask for a box or a program around the problem; false: the bare problem
    n: int  # answers per question


@dataclass(frozen=True, kw_only=True)
class Decontaminate:
    benchmarks: tuple[str, ...] | None  # names, NAME=FILE or files as in eval.tasks; null: none
    ngram: int  # words
    overlap: float  # drop a question holding at least this share of a benchmark question's n-grams
    near_duplicate: float  # drop one that shares this much of its pairs of words with an earlier


@dataclass(frozen=True, kw_only=True)
class Reject:
    unjudged: typing.Literal["keep", "drop"]  # rows whose question has no gold answer and no tests


@dataclass(frozen=True, kw_only=True)
class Mix:
    seed: int
    per_question: int  # at most so many traces of one question
    system: str  # written into every row; "" for none
    format: typing.Literal["thought_solution", "think"]


@dataclass(frozen=True, kw_only=True)
class Student:
    """For the report: whose tokens are counted. Absent: no report."""

    tokenizer: str
    max_length: int


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """One data recipe; `name` is the file's name and the folder's under data/."""

    name: str = field(metadata={"from_file": False})
    sources: dict[str, Source] = field(metadata={"from_file": False})
    decontaminate: Decontaminate
    difficulty: Asked | None
    teacher: Teacher
    rewrite: Asked | None
    reject: Reject
    mix: Mix
    student: Student | None


SECTIONS = {f.name: f.type for f in fields(Mixture) if f.metadata.get("from_file", True)}
OPTIONAL = ("difficulty", "rewrite", "student")
COSTS = (
    "urls",
    "api_key_env",
    "concurrency",
    "timeout",
    "max_retries",
    "dollars_in",
    "dollars_out",
)


def load_mixture(path: str | Path, overrides: typing.Sequence[str] = ()) -> Mixture:
    """Read and check a data recipe; raises RecipeError with file, line, value and remedy."""
    path = Path(path)
    values, lines = read_sections(read_recipe(path), str(path), None)
    for override in overrides:
        apply_override(override, values, lines, [*values, *SECTIONS])
    sources = {}
    for name in [name for name in values if name not in SECTIONS]:
        if "path" not in values[name]:
            raise RecipeError(
                f"{lines[name]}: section {name!r} is neither a source (it has no path) nor one of "
                f"{', '.join(SECTIONS)}"
            )
        sources[name] = build_section(name, Source, values.pop(name), lines)
    sections: dict[str, typing.Any] = {}
    for name, kind in SECTIONS.items():
        if name not in values and name not in OPTIONAL:
            raise RecipeError(f"{path}:1: section {name!r} is missing; it must be written")
        given = values.get(name)
        sections[name] = None if given is None else build_section(name, kind, given, lines)
    if not sources:
        raise RecipeError(f"{path}:1: no source; write a section with a path for each")
    mixture = Mixture(name=path.stem, sources=sources, **sections)
    _check_rules(mixture, lambda key: lines.get(key) or lines.get(key.partition(".")[0], str(path)))
    return mixture


def broken_shares(clean: typing.Any) -> list[tuple[str, str]]:
    """(key, what is wrong) of thresholds that have the right type and no sense; `clean` is the
    section, or a command line with its keys."""
    rules = [
        (clean.ngram < 2, "ngram", "at least 2 words; shorter ones meet by chance"),
        (not 0 < clean.overlap <= 1, "overlap", "a share above 0, at most 1"),
        (not 0 < clean.near_duplicate <= 1, "near_duplicate", "a share above 0, at most 1"),
    ]
    return [(key, message) for broken, key, message in rules if broken]


def _check_rules(mixture: Mixture, where: typing.Callable[[str], str]) -> None:
    labelled = next((name for name, source in mixture.sources.items() if source.label), None)
    teacher, clean = mixture.teacher, mixture.decontaminate
    rules = [
        (labelled and not mixture.difficulty, f"{labelled}.label",
         "labelling needs a difficulty section (the judge model), or label: false"),
        (teacher.n < 1, "teacher.n", "at least one answer per question is needed"),
        (teacher.temperature == 0 and teacher.n > 1, "teacher.n",
         "greedy decoding (temperature 0) gives n equal answers; set n: 1 or a temperature"),
        (mixture.mix.per_question < 1, "mix.per_question", "must be at least 1"),
    ]  # fmt: skip
    rules += [(True, f"decontaminate.{key}", message) for key, message in broken_shares(clean)]
    for name, source in mixture.sources.items():
        rules += [(True, f"{name}.{key}", message) for key, message in broken_rules(source)]
    for name in ("difficulty", "teacher", "rewrite"):
        asked = getattr(mixture, name)
        if asked is not None:
            rules += [
                (asked.max_tokens < 1, f"{name}.max_tokens", "must be at least 1"),
                (asked.max_retries < 0, f"{name}.max_retries", "must be at least zero"),
                (asked.concurrency < 1, f"{name}.concurrency", "must be at least 1"),
                (asked.timeout <= 0, f"{name}.timeout", "seconds, above zero"),
                (asked.temperature < 0, f"{name}.temperature", "must be at least zero"),
                (not 0 < asked.top_p <= 1, f"{name}.top_p", "above 0, at most 1"),
            ]
    for broken, key, message in rules:
        if broken:
            raise RecipeError(f"{where(key)}: {key}: {message}")


def endpoint(asked: Asked) -> Endpoint:
    """Where and how to call, without what is asked."""
    return Endpoint(model=asked.model, **{key: getattr(asked, key) for key in COSTS})


def sampling(asked: Asked) -> dict[str, typing.Any]:
    """The sampling arguments of one call, as the API names them."""
    return {key: getattr(asked, key) for key in ("temperature", "top_p", "max_tokens", "seed")}


def result_settings(section: typing.Any) -> dict[str, typing.Any]:
    """A section's values without those that move cost and speed only, and without `n`: an answer
    carries its number, so that more of them can be asked for later."""
    return {key: value for key, value in asdict(section).items() if key not in (*COSTS, "n")}
