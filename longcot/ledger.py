"""An append-only file of finished rows that survives a kill, and a file of what they depend on.

`answers.jsonl` holds one row per finished piece of work, flushed at once; `answers.settings.json`
beside it holds the settings they were made with, so that a second run goes on where the first was
killed and rows made under other settings are refused.
"""

import contextlib
import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from longcot import rows
from longcot.errors import RowError


def recover(
    path: Path, settings: dict[str, Any], elsewhere: str = "write to another folder"
) -> Iterator[dict]:
    """Yield the rows already in `path`; a last line that a kill cut short is removed first.

    Without the file, its settings are written. Raises RowError when the rows were made with other
    settings, naming those that differ; `elsewhere` says how to write to another place.
    """
    beside = path.with_suffix(".settings.json")
    if not path.exists():
        rows.write_json(beside, settings)
        return
    before = rows.read_json(beside) if beside.exists() else {}
    settings = rows.as_json(settings)
    differing = sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))
    if differing:
        changes = "; ".join(
            f"{k} was {before.get(k)!r:.80}, is {settings.get(k)!r:.80}" for k in differing
        )
        raise RowError(
            f"{path}: these rows were made with other settings ({changes}); "
            f"{elsewhere}, or remove the file to begin anew"
        )
    _cut_half_line(path)
    yield from (row for _, row in rows.read_jsonl(path))


def _cut_half_line(path: Path) -> None:
    with path.open("rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            stream.seek(start)
            newline = stream.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        stream.truncate(end)


@contextlib.contextmanager
def appending(path: Path) -> Iterator[Callable[[dict], None]]:
    """Give a function that appends one row and flushes it. One process at a time: a second raises
    RowError, for two would do the same work twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RowError(
                f"{path}: another process is writing it; wait for that one, or stop it"
            ) from None

        def append(row: dict) -> None:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            stream.flush()

        yield append


class Kept:
    """The rows of a stage file whose `drop` is as given, by `key`; memory holds only where they lie."""

    def __init__(self, path: Path, drop: str | None = None) -> None:
        self.path, self.places = path, dict[str, int]()
        place = 0
        with path.open("rb") as stream:
            for line in stream:
                row = json.loads(line)
                if row["drop"] == drop:
                    self.places[row["key"]] = place
                place += len(line)

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: str) -> dict:
        with self.path.open("rb") as stream:
            stream.seek(self.places[key])
            return json.loads(stream.readline())


def tally(path: Path) -> dict[str, Any]:
    """{stage, rows_in, rows_out, dropped: {reason: rows}} of a stage file."""
    dropped = Counter(row["drop"] for _, row in rows.read_jsonl(path))
    rows_in, kept = dropped.total(), dropped.pop(None, 0)
    return {
        "stage": path.stem,
        "rows_in": rows_in,
        "rows_out": kept,
        "dropped": dict(sorted(dropped.items())),
    }
