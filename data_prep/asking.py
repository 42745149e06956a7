"""Fill a stage file by asking a model for the rows it does not hold yet."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.mixture import Asked, endpoint
from longcot import client, ledger
from longcot.errors import ClientError

CALL_FAILED = "call failed"  # the only reason that --retry-failed asks again
HOPELESS = 20  # failures from the start on, without one answer between


def ask_missing(
    path: Path,
    settings: dict[str, Any],
    keys: Sequence[str],
    call: Callable[[str], client.Call],
    asked: Asked,
    read: Callable[[client.Answer], dict],
    again: bool,
) -> None:
    """Ask the `call` of every key not in the stage file and append what `read` makes of the answer.

    `again` first forgets the calls that had failed for good. Raises ClientError when the first
    HOPELESS answers are all failures: a wrong model name or a switched-off option fails every call.
    """
    answers = failures = 0
    with ledger.opened(path, settings) as stage:
        if again:
            stage.forget(lambda row: (row["drop"] or "").startswith(CALL_FAILED))
        done = {row["key"] for row in stage}
        missing = [key for key in keys if key not in done]

        def take(answer: client.Answer) -> None:
            nonlocal answers, failures
            answers, failures = answers + 1, failures + (answer.error is not None)
            stage.append(read(answer) | {"error": answer.error})
            if answers == failures == HOPELESS:
                raise ClientError(
                    f"{path}: the first {HOPELESS} calls all failed, the last with {answer.error!r:.200}; "
                    "mend that, then run the same command with --retry-failed"
                )

        if missing:
            meter = client.ask_all(map(call, missing), endpoint(asked), take, len(missing))
            print(f"{path.stem}: {meter.line()}")


def append_missing(path: Path, settings: dict[str, Any], found: Iterable[dict]) -> None:
    """Append the rows whose key is not in the stage file."""
    with ledger.opened(path, settings) as stage:
        done = {row["key"] for row in stage}
        for row in found:
            if row["key"] not in done:
                stage.append(row)


def fault(answer: client.Answer) -> str | None:
    """Why an answer is no data, or None; reasons are short, so that they can be counted."""
    if answer.error:
        return f"{CALL_FAILED}: {answer.error.partition(':')[0]}"
    if answer.finish_reason == "length":
        return "cut at max_tokens"
    if answer.finish_reason != "stop":
        return f"finish_reason {answer.finish_reason}"
    return None if (answer.text or answer.reasoning or "").strip() else "empty reply"
