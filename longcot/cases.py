"""From a test of a code answer to runs in the sandbox, and what is wrong with their output.

A function is called by a small driver beside the answer, which writes the returned value as one
line; the value is compared out here with an expected one that never went in. Assertions of another
form than `f(literals) == literal` carry their expected values, so they run beside the answer, and
prove less: an answer whose values claim to equal anything passes them.
"""

import ast
import functools
import inspect
import json
import os
import secrets
import sys
import types
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from longcot.errors import GradeError


SCALARS = ("int", "bytes", "complex")  # what `encode` writes as an object though it is one value


class Case(NamedTuple):
    """One run: what goes in, and what is wrong with what came out (None: nothing)."""

    program: str
    stdin: bytes
    size: int  # bytes of output that a right answer may need
    fault: Callable[[bytes], str | None]


def read_cases(test: dict, code: str, starter: str = "") -> Iterator[Case]:
    """The runs of one test (see `code.judge_code`); raises GradeError if it cannot be read."""
    if not isinstance(test, dict):
        raise GradeError(f"a test must be an object, found {shorten(test)}")
    if "assert" in test:
        yield from _read_assertions(test["assert"], code, starter)
    elif "fn_name" in test:
        name, given = test["fn_name"], test.get("input")
        if not (isinstance(name, str) and isinstance(given, list) and "output" in test):
            raise GradeError(f"a function test wants a name, a list and an output: {shorten(test)}")
        job = {"code": code, "name": name, "method": "class Solution" in code}
        if test.get("wrapped"):
            yield _make_call(job, *_unwrap(given, test["output"]), True)
        else:
            yield _make_call(job, given, [test["output"]], True)
    else:
        given, expected = (_as_text(test.get(name)) for name in ("input", "output"))
        if given is None or expected is None:
            raise GradeError(f"a test wants an input and an output text: {shorten(test)}")
        size = 2 * len(expected) + (1 << 16)
        fault = functools.partial(compare_lines, expected)
        yield Case(code, given.encode("utf-8", "replace"), size, fault)


def shorten(value: object) -> str:
    """A value for a message: ASCII, one short line."""
    text = value if isinstance(value, str) else repr(value)
    text = ascii(text)[1:-1]
    return text if len(text) <= 80 else f"{text[:60]} ... {text[-15:]}"


def _as_text(value: Any) -> str | None:
    """A text, or the lines of one, as some rows of APPS have them."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return value if isinstance(value, str) else None


# ---- printed lines


def compare_lines(expected: str, printed: bytes) -> str | None:
    """What is wrong with the output, or None. LiveCodeBench's rule (`grade_stdio`): as many lines,
    and each equal as text or as a list of decimal numbers, exactly; outer white space is free."""
    lines, wanted = (
        [line.strip() for line in text.strip().split("\n")]
        for text in (printed.decode("utf-8", "surrogateescape"), expected)
    )
    if len(lines) != len(wanted):
        return f"wrong answer: {len(lines)} lines, expected {len(wanted)}"
    for number, (line, want) in enumerate(zip(lines, wanted, strict=True), 1):
        if line != want and not _are_equal_numbers(line, want):
            return f"wrong answer: line {number} is {shorten(line)}, expected {shorten(want)}"
    return None


def _are_equal_numbers(line: str, want: str) -> bool:
    try:
        return [*map(Decimal, line.split())] == [*map(Decimal, want.split())]
    except (InvalidOperation, ValueError):  # a word, a signalling NaN, half a character
        return False


# ---- returned values


def drive() -> None:
    """Inside the sandbox: call the answer's function, or run assertions beside it, then write the
    run's tag and the value as one line. What the answer prints goes nowhere."""
    job = json.loads(sys.stdin.buffer.read())
    answer = os.dup(1)
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    module = sys.modules["solution"] = types.ModuleType("solution")
    try:
        exec(compile(job["starter"], "starter.py", "exec", dont_inherit=True), vars(module))
    except SyntaxError:
        pass  # a beginning that says nothing without its end
    exec(compile(job["code"], "solution.py", "exec", dont_inherit=True), vars(module))
    if job["assert"] is not None:
        exec(compile(job["assert"], "test.py", "exec", dont_inherit=True), vars(module))
        value = None
    else:
        owner = vars(module)["Solution"]() if job["method"] else module
        value = encode(getattr(owner, job["name"])(*map(decode, job["arguments"])))
    with open(answer, "wb") as stream:
        stream.write(json.dumps([job["tag"], value]).encode() + b"\n")
    os._exit(0)


def encode(value: Any) -> Any:
    """A Python value as JSON that tells apart what JSON does not: {"tuple": [...]} ..."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return {"int": hex(value)} if abs(value) >> 63 else int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return "".join(value)
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            items = [encode(item) for item in value]
            return items if kind is list else {kind.__name__: items}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if hasattr(value, "item"):  # numpy's numbers
        return encode(value.item())
    return {"other": repr(value)[:80]}


def decode(value: Any) -> Any:
    """The value that `encode` wrote; something equal to nothing for {"other": ...}."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "int":
        return int(inner, 16)
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind == "complex":
        return complex(*inner)
    if kind == "dict":
        return {decode(key): decode(item) for key, item in inner}
    kinds = {"tuple": tuple, "set": set, "frozenset": frozenset}
    return kinds[kind](decode(item) for item in inner) if kind in kinds else object()


def is_equal(found: Any, expected: Any) -> bool:
    """Whether a value, as `encode` wrote it, equals `expected`, as == would say.

    It is taken apart along the trusted side: no set or dictionary is ever made of the other, whose
    members may have been chosen to make that endless. Raises LookupError, TypeError or ValueError
    for what `encode` never writes.
    """
    kind, inner = next(iter(found.items())) if isinstance(found, dict) else ("list", found)
    if isinstance(expected, dict):
        if kind != "dict" or len(inner) != len(expected):
            return False
        known = {key: item for key, item in _decode_keys(inner) if key in expected}
        return len(known) == len(expected) and all(is_equal(known[k], expected[k]) for k in known)
    if isinstance(expected, set | frozenset):
        if kind not in ("set", "frozenset") or len(inner) != len(expected):
            return False
        known = {key for key, _ in _decode_keys([item, None] for item in inner) if key in expected}
        return len(known) == len(expected)
    if isinstance(expected, list | tuple):
        if kind != type(expected).__name__ or not isinstance(inner, list):
            return False
        return len(inner) == len(expected) and all(map(is_equal, inner, expected))
    return _decode_scalar(found) == expected


def _decode_scalar(value: Any) -> Any:
    simple = not isinstance(value, list | dict) or next(iter(value), "") in SCALARS
    return decode(value) if simple else object()


def _decode_keys(pairs: Any) -> Iterator[tuple[Any, Any]]:
    for key, item in pairs:
        if isinstance(key, dict) and "tuple" in key:
            yield tuple(part for part, _ in _decode_keys([part, None] for part in key["tuple"])), item
        else:
            yield _decode_scalar(key), item


def _make_call(job: dict, arguments: list, accepted: list, free: bool) -> Case:
    """A run that calls a function; `free`: a tuple may stand for a list, outermost, as in
    LiveCodeBench (`grade_call_based`)."""
    tag = secrets.token_hex(8)
    job = {"tag": tag, "starter": "", "assert": None, **job, "arguments": encode(arguments)}
    size = 4 * len(repr(accepted)) + (1 << 16)
    fault = functools.partial(_compare_value, tag, accepted, free)
    return Case(_driver(), json.dumps(job).encode(), size, fault)


def _compare_value(tag: str, accepted: list, free: bool, printed: bytes) -> str | None:
    try:
        found_tag, found = json.loads(printed)
        if found_tag != tag:
            return "no value came back"
        if free and isinstance(found, dict) and "tuple" in found:
            found = found["tuple"]
        if any(is_equal(found, expected) for expected in accepted):
            return None
    except (ValueError, TypeError, LookupError, RecursionError):
        return "no readable value came back"
    return f"wrong answer: {shorten(json.dumps(found))}, expected {shorten(accepted[-1])}"


@functools.cache
def _driver() -> str:
    parts = [inspect.getsource(part) for part in (encode, decode, drive)]
    return "\n".join(["import json, os, sys, types\nfrom typing import Any", *parts, "drive()"])


def _unwrap(arguments: list, output: Any) -> tuple[list, list]:
    """APPS's way with function tests: an expected value may lie in a list of one, and dictionaries
    have got back the whole numbers that JSON made texts of their keys."""
    if arguments and isinstance(arguments[0], dict):
        arguments = [_with_number_keys(arguments[0]), *arguments[1:]]
    accepted = [output]
    if isinstance(output, list) and len(output) == 1:
        accepted.append(output[0])
    return arguments, [_with_number_keys(value) for value in accepted]


def _with_number_keys(value: Any) -> Any:
    try:
        return {int(key): item for key, item in value.items()}
    except (AttributeError, ValueError):
        return value


# ---- assertions


def _read_assertions(text: Any, code: str, starter: str) -> Iterator[Case]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, TypeError, ValueError) as error:
        raise GradeError(f"assertions that are no Python ({error}): {shorten(text)}") from None
    called = {node.func.id for node in ast.walk(tree)
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)) or defined - called:
        raise GradeError(f"assertions that are never made: {shorten(text)}")
    calls = _read_calls(tree)
    job = {"code": code, "starter": starter, "method": False}
    if calls is None:
        tag = secrets.token_hex(8)
        job |= {"tag": tag, "assert": text}
        fault = functools.partial(_compare_value, tag, [None], False)
        yield Case(_driver(), json.dumps(job).encode(), 1 << 16, fault)
    for name, arguments, expected in calls or ():
        yield _make_call({**job, "name": name}, arguments, [expected], False)


def _read_calls(tree: ast.Module) -> list[tuple[str, list, Any]] | None:
    """(function, arguments, expected value) of every assertion, if all are `f(literals) ==
    literal`, at the top or in a `check(candidate)` that is called on a name; None otherwise."""
    names, body = {}, []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and len(node.args.args) == 1:
            body += node.body
            names[node.args.args[0].arg] = node.name
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            ...
    return []
