"""Values across the wall: a function's result is written inside the sandbox and compared outside.

What comes out was written by code that nobody has read: it is taken apart along the expected value
and nothing of it is run, hashed in bulk or trusted.
"""

import contextlib
import functools
import inspect
import json
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

SCALARS = ("int", "bytes", "complex")  # what `encode` writes as an object though it is one value


def drive() -> None:
    """Inside the sandbox: call the answer's function, or run assertions beside it, then write the
    run's tag and the value as one line. What the answer prints goes nowhere."""
    job = json.loads(sys.stdin.buffer.read())
    answer = os.dup(1)
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    module = sys.modules["solution"] = types.ModuleType("solution")
    with contextlib.suppress(SyntaxError):  # a beginning that says nothing without its end
        exec(compile(job["starter"], "starter.py", "exec", dont_inherit=True), vars(module))
    exec(compile(job["code"], "solution.py", "exec", dont_inherit=True), vars(module))
    if job["assert"] is not None:
        exec(compile(job["assert"], "test.py", "exec", dont_inherit=True), vars(module))
        value = None
    else:
        owner = vars(module)["Solution"]() if job["method"] else module
        value = encode(getattr(owner, job["name"])(*map(decode, job["arguments"])))
    with os.fdopen(answer, "wb") as stream:
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
    kind, inner = ("list", found)
    if isinstance(found, dict):
        ((kind, inner),) = found.items()
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
            yield (
                tuple(part for part, _ in _decode_keys([part, None] for part in key["tuple"])),
                item,
            )
        else:
            yield _decode_scalar(key), item


@functools.cache
def driver() -> str:
    """The program that `drive` is inside the sandbox."""
    parts = [inspect.getsource(part) for part in (encode, decode, drive)]
    imports = "import contextlib, json, os, sys, types\nfrom typing import Any\n"
    return "\n".join([imports, *parts, "drive()\n"])
