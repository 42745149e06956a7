"""Judge code answers by LiveCodeBench's rules, with the checker outside the sandbox.

Code and one input go into a process of their own, bytes come out and are compared here; so nothing
that the code does to its process (an overridden ==, patched builtins, a forged end) turns a
verdict. The exception are assertions that are not of the form `f(literals) == literal`: they carry
their expected values, run beside the code, and prove less.
"""

import ast
import functools
import inspect
import itertools
import json
import os
import secrets
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from longcot import sandbox
from longcot.errors import GradeError
from longcot.sandbox import Limits, Outcome

ENDS = {
    "crashed": "runtime error",
    "timeout": "time limit",
    "memory": "memory limit",
    "output_limit": "output limit",
}


class Case(NamedTuple):
    """One run: what goes in, and what is wrong with what came out (None: nothing)."""

    program: str
    stdin: bytes
    size: int  # bytes of output that a right answer may need
    fault: Callable[[bytes], str | None]


# ---- finding the code


def extract_code(solution: str) -> tuple[str | None, str]:
    """The text between the second last and the last line with three backticks, whatever stands
    there, and how it was found (LiveCodeBench, `extract_code`)."""
    lines = solution.split("\n")
    fences = [number for number, line in enumerate(lines) if "```" in line]
    if len(fences) < 2:
        return None, "fewer than two lines with ```"
    code = "\n".join(lines[fences[-2] + 1 : fences[-1]])
    return (code, "last two fences") if code.strip() else (None, "nothing between the last fences")


# ---- judging


def judge_code(
    tests: list[dict], code: str, limits: Limits | None = None, starter_code: str | None = None
) -> tuple[bool | None, str]:
    """Whether `code` passes every test, and why; stops at the first that fails.

    A test is {"input", "output"} (texts for stdin and stdout), {"fn_name", "input": [arguments],
    "output"} or {"assert": statements}, before which `starter_code` is run, if it runs alone.
    `correct` is None, never False, when the tests cannot be read, there are none or the sandbox
    failed. Raises SandboxError where programs cannot be isolated.
    """
    try:
        cases = [case for test in tests for case in _read_cases(test, code, starter_code or "")]
    except GradeError as error:
        return None, str(error)
    if not cases:
        return None, "no test to run"
    limits = limits or Limits()
    limits = replace(limits, output=max(limits.output, *(case.size for case in cases)))
    number, level = 0, ""
    for program, group in itertools.groupby(cases, key=lambda case: case.program):
        alike = list(group)
        with closing(sandbox.run_each(program, (case.stdin for case in alike), limits)) as outcomes:
            for case, outcome in zip(alike, outcomes, strict=True):
                number, level = number + 1, outcome.level
                if outcome.status == "sandbox_failure":
                    return None, f"the sandbox failed: {outcome.stderr_tail} ({level})"
                if fault := _find_fault(case, outcome):
                    return False, f"test {number} of {len(cases)}: {fault} ({level})"
    return True, f"{number} tests passed ({level})"


def _find_fault(case: Case, outcome: Outcome) -> str | None:
    if outcome.status == "exited":
        return case.fault(outcome.stdout)
    told = outcome.stderr_tail.rstrip().rpartition("\n")
    last = told[0].rstrip().rpartition("\n")[2] if outcome.status == "crashed" else told[2]
    return f"{ENDS[outcome.status]}: {_short(last or told[2])}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else ascii(value)
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 80 else f"{text[:60]} ... {text[-15:]}"


def _read_cases(test: dict, code: str, starter: str) -> Iterator[Case]:
    """The runs of one test; raises GradeError for one that cannot be read."""
    if not isinstance(test, dict):
        raise GradeError(f"a test must be an object, found {_short(test)}")
    if "assert" in test:
        yield from _read_assertions(test["assert"], code, starter)
    elif "fn_name" in test:
        if not isinstance(test.get("input"), list) or "output" not in test:
            raise GradeError(f"a function test needs a list input and an output: {_short(test)}")
        yield _call(code, test["fn_name"], test["input"], _accepted(test))
    else:
        given, expected = (_as_text(test.get(name)) for name in ("input", "output"))
        if given is None or expected is None:
            raise GradeError(f"a test needs an input and an output text: {_short(test)}")
        fault = functools.partial(compare_output, expected)
        yield Case(code, given.encode("utf-8", "replace"), 2 * len(expected) + 65536, fault)


def _as_text(value: Any) -> str | None:
    """A text, or the lines of one, as some rows of APPS have them."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return value if isinstance(value, str) else None


# ---- comparing what was printed


def compare_output(expected: str, printed: bytes) -> str | None:
    """What is wrong with the output, or None (LiveCodeBench, `grade_stdio`): the stripped lines
    must be as many and each equal, as text or as a list of decimal numbers, exactly."""
    lines, wanted = (
        [line.strip() for line in text.strip().split("\n")]
        for text in (printed.decode("utf-8", "surrogateescape"), expected)
    )
    if len(lines) != len(wanted):
        return f"wrong answer: {len(lines)} lines, {len(wanted)} expected"
    for number, (line, want) in enumerate(zip(lines, wanted, strict=True), 1):
        if line != want and not _are_equal_numbers(line, want):
            return f"wrong answer: line {number} is {_short(line)}, expected {_short(want)}"
    return None


def _are_equal_numbers(line: str, want: str) -> bool:
    try:
        return [*map(Decimal, line.split())] == [*map(Decimal, want.split())]
    except InvalidOperation:  # a word, or a signalling NaN
        return False
