"""Tests become runs; printed lines and returned values are compared by LiveCodeBench's rules."""

import json

import pytest

from longcot.cases import compare_lines, read_cases, shorten
from longcot.errors import GradeError


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("3\n", "3"),
        ("3", "\n  3  \n\n"),
        ("1 2\n3", "1 2  \n  3\n"),
        ("a\r\nb", "a\nb"),
        ("0.5", "0.500"),
        ("12.34", "12.340"),
        ("100", "1e2"),
        ("1 2 3", "1.0   2 3e0"),
        ("-0", "0"),
        ("Infinity", "inf"),
        ("", "\n\n"),
        ("YES", "YES"),
        ("\u00e9", "\u00e9"),
        ("12345678901234567890.1", "12345678901234567890.10"),
    ],
)
def test_lines_that_are_right(expected, printed):
    assert compare_lines(expected, printed.encode()) is None


@pytest.mark.parametrize(
    ("expected", "printed", "told"),
    [
        ("3", "4", "line 1 is 4, expected 3"),
        ("YES", "yes", "line 1 is yes, expected YES"),
        ("1 2", "1 2 3", "line 1 is 1 2 3"),
        ("1\n2", "1", "1 lines, expected 2"),
        ("1\n2", "1 2", "1 lines, expected 2"),
        ("1\n\n2", "1\n2", "2 lines, expected 3"),
        ("0.3", "0.30000000000000004", "line 1"),
        ("1", "1.000000001", "line 1"),
        ("5 apples", "5.0 apples", "line 1"),
        ("nan", "NaN", "line 1"),
        ("snan", "sNaN", "line 1"),
        ("50000000000000000", "50000000000000001", "line 1"),
        ("3", "", "line 1 is , expected 3"),
        ("3", "3\x00", "line 1"),
        ("[1, 2]", "[1,2]", "line 1"),
    ],
)
def test_lines_that_are_wrong(expected, printed, told):
    fault = compare_lines(expected, printed.encode())
    assert fault.startswith("wrong answer: ") and told in fault


def test_output_that_is_no_text_is_wrong_and_can_be_told():
    fault = compare_lines("3", b"\xff\xfe3")
    assert fault.isascii() and "line 1" in fault
    assert compare_lines("\ufffd", b"\xff") is not None


def test_a_long_line_is_shortened():
    fault = compare_lines("x" * 5000, b"y" * 5000)
    assert len(fault) < 250 and "yyy ... yyy" in fault
    assert shorten(10**5000) == "int" and shorten(["\u00e9\n"]) == "['\\xe9\\\\n']"


def read(test, code="", starter=""):
    return list(read_cases(test, code, starter))


def test_a_printing_test_runs_the_code_itself():
    (case,) = read({"input": "1\n", "output": "2\n"}, "print(2)")
    assert (case.program, case.stdin) == ("print(2)", b"1\n")
    assert case.fault(b"2") is None and case.fault(b"3") is not None
    assert case.size > 1 << 16


def test_lines_may_be_a_list_as_in_apps():
    (case,) = read({"input": ["1", "2"], "output": ["3", "4"]}, "")
    assert case.stdin == b"1\n2" and case.fault(b"3\n4\n") is None


def call(**test):
    code = test.pop("code", "class Solution: ...")
    (case,) = read({"fn_name": "f", "input": [1, [2]], **test}, code)
    return case, json.loads(case.stdin)


def test_a_function_test_calls_it_by_the_driver_and_keeps_the_expected_value():
    case, job = call(output=["s3cr3t"])
    assert (job["name"], job["arguments"], job["method"]) == ("f", [1, [2]], True)
    assert "s3cr3t" not in case.program and b"s3cr3t" not in case.stdin
    assert call(output=1, code="def f(a, b): ...")[1]["method"] is False


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ([1, 2], [1, 2]),
        ([1, 2], {"tuple": [1, 2]}),
        (3, 3.0),
        (True, 1),
        ({"a": 1}, {"dict": [["a", 1]]}),
        (1 << 80, {"int": hex(1 << 80)}),
        (None, None),
    ],
)
def test_values_that_are_right(output, value):
    case, job = call(output=output)
    assert case.fault(json.dumps([job["tag"], value]).encode() + b"\n") is None


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ([1, 2], [2, 1]),
        ([[1, 2]], [{"tuple": [1, 2]}]),
        ([[1, 2]], {"tuple": [{"tuple": [1, 2]}]}),
        (0.3, 0.30000000000000004),
        ([1], [[1]]),
        ([5], 5),
        ("a", ["a"]),
        ({"1": 1}, {"dict": [[1, 1]]}),
        (3, {"other": "<Same>"}),
    ],
)
def test_values_that_are_wrong(output, value):
    case, job = call(output=output)
    told = case.fault(json.dumps([job["tag"], value]).encode())
    assert told.startswith("wrong answer: ") and "expected" in told


@pytest.mark.parametrize(
    "lines",
    ["", "\n", "x", "3", "[3]", '["", 3]', "[TAG, 3]\n[TAG, 3]", "[TAG, 3, 4]", '{"a": 1}', "[TAG]", "null",
     "[TAG, {}]", '[TAG, {"dict": 3}]', '[TAG, {"set": [[1]]}]', '[TAG, {"int": 3}]',
     "[TAG, " + "[" * 100_000, '[TAG, {"a": 1, "b": 2}]', "[TAG, " + "9" * 5000 + "]", "\udcff"],
)  # fmt: skip
def test_lines_that_are_no_value(lines):
    for output in (3, [3], {"a": 3}):
        case, job = call(output=output)
        text = lines.replace("TAG", json.dumps(job["tag"])).encode("utf-8", "surrogateescape")
        assert case.fault(text) is not None


def test_every_call_has_its_own_tag():
    assert call(output=3)[1]["tag"] != call(output=3)[1]["tag"]


def test_apps_may_wrap_the_expected_value_in_a_list_of_one():
    case, job = call(output=[5], wrapped=True)
    for value, right in (
        (5, True),
        ([5], True),
        ([[5]], False),
        (4, False),
        ({"tuple": [5]}, True),
    ):
        assert (case.fault(json.dumps([job["tag"], value]).encode()) is None) == right
    case, job = call(output=[5, 6], wrapped=True)
    assert case.fault(json.dumps([job["tag"], 5]).encode()) is not None


def test_apps_dictionaries_get_their_number_keys_back():
    case, job = call(input=[{"1": 2}, {"1": 2}], output=[{"3": 4}], wrapped=True)
    assert job["arguments"] == [{"dict": [[1, 2]]}, {"dict": [["1", 2]]}]
    assert case.fault(json.dumps([job["tag"], {"dict": [[3, 4]]}]).encode()) is None
    case, job = call(input=[{"a": 2}], output={"b": 4}, wrapped=True)
    assert job["arguments"] == [{"dict": [["a", 2]]}]
    assert case.fault(json.dumps([job["tag"], {"dict": [["b", 4]]}]).encode()) is None


# ---- assertions

CHECK = """
METADATA = {'author': 'x'}


def check(candidate):
    assert candidate([1, 2], 3) == (1, {2}), "told"
    assert True, "for show"
    assert candidate(-1) == "s3cr3t"

check(solve)
"""


def test_plain_assertions_become_calls_with_the_values_kept_outside():
    first, second = read({"assert": CHECK}, "def solve(): ...", "import math")
    for case, arguments in ((first, [[1, 2], 3]), (second, [-1])):
        job = json.loads(case.stdin)
        assert (job["name"], job["arguments"], job["starter"]) == (
            "solve",
            arguments,
            "import math",
        )
        assert job["assert"] is None and b"s3cr3t" not in case.stdin
    tag = json.loads(first.stdin)["tag"]
    right = {"tuple": [1, {"set": [2]}]}
    assert first.fault(json.dumps([tag, right]).encode()) is None
    assert first.fault(json.dumps([tag, [1, {"set": [2]}]]).encode()) is not None  # no tuple


def test_assertions_at_the_top_are_read_as_well():
    (case,) = read({"assert": "assert f(1, 'a') == [2]"}, "")
    assert json.loads(case.stdin)["name"] == "f"


@pytest.mark.parametrize(
    "text",
    [
        "assert abs(f(1) - 0.5) < 1e-6",
        "assert f(x) == 1",
        "assert set(f(1)) == {1}",
        "assert not f(1)",
        "assert f(1) == 1 == 1",
        "assert f(a=1) == 1",
        "for n in range(3):\n    assert f(n) == n",
        "import math\nassert f(1) == 1",
        "def check(candidate):\n    x = 3\n    assert candidate(1) == 2\ncheck(f)",
        "x = f(1)\nassert f(1) == 2",
    ],
)
def test_other_assertions_run_beside_the_code(text):
    (case,) = read({"assert": text}, "code", "start")
    job = json.loads(case.stdin)
    assert (job["assert"], job["code"], job["starter"]) == (text, "code", "start")
    assert case.fault(json.dumps([job["tag"], None]).encode()) is None
    for end in (b"", b"[null, null]", json.dumps([job["tag"], 1]).encode()):
        assert case.fault(end) is not None


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("text", "a test must be an object"),
        ({}, "wants an input and an output text"),
        ({"input": 1, "output": "2"}, "wants an input and an output text"),
        ({"input": "1"}, "wants an input and an output text"),
        ({"input": [1], "output": "2"}, "wants an input and an output text"),
        ({"fn_name": "f", "input": "1", "output": 1}, "wants a name, a list and an output"),
        ({"fn_name": None, "input": [1], "output": 1}, "wants a name, a list and an output"),
        ({"fn_name": "f", "input": [1]}, "wants a name, a list and an output"),
        ({"assert": 3}, "assertions that are no Python"),
        ({"assert": "assert ("}, "assertions that are no Python"),
        ({"assert": "f(1)"}, "assertions that are never made"),
        ({"assert": "def check(candidate):\n    assert candidate(1) == 1"}, "never made"),
        ({"assert": ""}, "never made"),
    ],
)
def test_a_test_that_cannot_be_read_is_told(test, told):
    with pytest.raises(GradeError, match=told):
        read(test)
