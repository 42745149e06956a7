"""An append-only file of finished rows that survives a kill, and a file of what they depend on.

`answers.jsonl` holds one row per finished piece of work, flushed at once; `answers.settings.json`
beside it holds the settings they were made with, so that a second run goes on where the first was
killed and rows made under other settings are refused.
"""

import contextlib
import fcntl
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from longcot import rows
from longcot.errors import RowError


class Ledger:
    """An opened stage file: iterate over the rows it has, `append` one, `forget` some."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream = path.open("a", encoding="utf-8")

    def __iter__(self) -> Iterator[dict]:
        return (row for _, row in rows.read_jsonl(self.path))

    def append(self, row: dict) -> None:
        """Write one row and flush it."""
        self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.stream.flush()

    def forget(self, unwanted: Callable[[dict], bool]) -> None:
        """Remove rows; the file is replaced whole."""
        self.stream.close()
        rows.write_jsonl(self.path, (row for row in self if not unwanted(row)))
        self.stream = self.path.open("a", encoding="utf-8")


@contextlib.contextmanager
def opened(
    path: Path, settings: dict[str, Any], elsewhere: str = "write to another folder"
) -> Iterator[Ledger]:
    """Open a stage file for this process alone; a last line that a kill cut short is removed.

    Raises RowError when another process has it open, or when its rows were made with other settings,
    naming those that differ; `elsewhere` says how to write to another place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file of its own, which is never replaced: a lock holds a file, not a name.
    with path.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RowError(
                f"{path}: another process is writing it; wait for that one, or stop it"
            ) from None
        _check_settings(path, rows.as_json(settings), elsewhere)
        if path.exists():
            _cut_half_line(path)
        ledger = Ledger(path)
        try:
            yield ledger
        finally:
            ledger.stream.close()


def begun(path: Path) -> str:
    """The identity of a stage file: another one each time it is begun anew."""
    return rows.read_json(path.with_suffix(".settings.json"))["begun"]


def _check_settings(path: Path, settings: dict[str, Any], elsewhere: str) -> None:
    beside = path.with_suffix(".settings.json")
    if not path.exists() or not path.stat().st_size:
        rows.write_json(beside, settings | {"begun": uuid.uuid4().hex})
        return
    before = rows.read_json(beside) if beside.exists() else {}
    before.pop("begun", None)
    old, new = _flat(before), _flat(settings)
    differing = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
    if differing:
        changes = "; ".join(f"{k} was {old.get(k)!r:.80}, is {new.get(k)!r:.80}" for k in differing)
        raise RowError(
            f"{path}: these rows were made with other settings ({changes}); "
            f"{elsewhere}, or remove the file to begin anew"
        )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by `section.key`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inner = value if isinstance(value, dict) else None
        found |= {f"{name}.{k}": v for k, v in inner.items()} if inner else {name: value}
    return found


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


class Kept:
    """The rows of a stage file whose `drop` is as given, by `key`; memory holds only where they lie."""

    def __init__(self, path: Path, drop: str | None = None) -> None:
        self.path, self.places = path, dict[str, int]()
        place = 0
        with path.open("rb") as stream:
            for line in stream:
                row = json.loads(line) if line.strip() else {"drop": "no row"}
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
