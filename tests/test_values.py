"""Values that cross the wall: written inside by code nobody has read, compared outside."""

import contextlib
import json
import math
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from enum import IntEnum
from fractions import Fraction

import pytest

from longcot.values import decode, driver, encode, is_equal

Point = namedtuple("Point", "x y")


class Level(IntEnum):
    HIGH = 3


class Same(list):
    def __eq__(self, other):
        return True

    __hash__ = None


VALUES = [
    None, True, False, 0, -7, 1 << 62, -(1 << 90), 10**5000, 0.0, -0.5, 1e300, math.inf, "", "a\n\u00e9",
    "\ud800", [], [1, [2, [3]]], (), (1, (2,)), {1, 2}, frozenset({3}), {}, {"a": 1}, {1: "x", (2, 3): []},
    b"\x00\xff", 1 + 2j, [None, (1, [2.5, "x"]), {"k": {(): frozenset()}}],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_through_json(value):
    written = json.loads(json.dumps(encode(value)))
    back = decode(written)
    assert back == value and type(back) is type(value)
    assert is_equal(written, value)
    others = [other for other in VALUES if other != value]
    assert not any(is_equal(written, other) for other in others)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, 2), (1, 2)),
        (Level.HIGH, 3),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (Same([1]), [1]),
    ],
)
def test_kinds_of_the_plain_types_are_those(value, plain):
    assert is_equal(encode(value), plain)


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert is_equal(encode([numpy.int64(3), numpy.float32(0.5), numpy.bool_(True)]), [3, 0.5, True])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((1, 2), [1, 2]), ([1, 2], (1, 2)), ([(1, 2)], [[1, 2]]), ({"1": 2}, {1: 2}), ("1", 1), (1, "1"),
        ({1}, [1]), (deque([1]), [1]), (range(2), [0, 1]), (Fraction(1, 2), 0.5), (Same([1]), [2]),
        (object(), "x"), ([1], [1, 2]), ({"a": 1}, {"a": 1, "b": 2}), ({1, 2}, {1, 3}), (math.nan, math.nan),
        (None, False), ("", None), ([], None), ({}, []), (b"a", "a"), (0.1 + 0.2, 0.3), ([], {}), ((), []),
    ],
)  # fmt: skip
def test_what_is_not_equal(found, expected):
    assert not is_equal(json.loads(json.dumps(encode(found))), expected)


@pytest.mark.parametrize(
    ("found", "expected"), [(1, 1.0), (True, 1), (2.0, 2), ({1}, frozenset({1})), (0, False)]
)
def test_what_python_calls_equal_is(found, expected):
    assert is_equal(encode(found), expected)


COLLIDING = [{"int": hex(k * (2**61 - 1))} for k in range(60_000)]


@pytest.mark.parametrize(
    "found",
    [
        {"set": COLLIDING},
        {"frozenset": COLLIDING},
        {"dict": [[key, 1] for key in COLLIDING]},
        {"dict": [[{"frozenset": COLLIDING}, 1]]},
        {"set": [{"frozenset": COLLIDING}]},
        {"tuple": [{"set": COLLIDING}]},
        {"other": "x"}, {"surprise": 1}, {"set": [[1]]}, {"dict": [[[1], 1]]}, [[[[]]]],
    ],
)  # fmt: skip
def test_hostile_writings_are_taken_apart_along_the_expected_value(found):
    """As sets and dictionaries the first would take hours."""
    for expected in (1, "x", [1], (1,), {1}, {"a": 1}, {(1, 2): 3}, None, set(range(60_000))):
        assert not is_equal(found, expected)


@pytest.mark.parametrize("found", [{}, {"set": 3}, {"dict": [1]}, {"dict": [[1]]}, {"int": "x"}, {"int": 5},
                                   {"complex": [1, 2, 3]}, {"bytes": "zz"}])  # fmt: skip
def test_what_is_never_written_is_unequal_or_told(found):
    for expected in (1, [1], {1}, {"a": 1}, (1,)):
        with contextlib.suppress(LookupError, TypeError, ValueError):
            assert not is_equal(found, expected)


def test_the_driver_is_a_whole_program():
    code = compile(driver(), "driver", "exec")
    assert {"encode", "decode", "drive"} <= set(code.co_names)
    assert "longcot" not in driver()
