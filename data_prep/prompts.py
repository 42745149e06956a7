"""What the three models are asked, in our own words, and how their answers are read.

The teacher solves a question, the judge labels its difficulty, the rewriter lays an unstructured
trace out in Sky-T1's four tags (arXiv 2502.07374; the wording of the paper's prompts is not used).
"""

import hashlib
import re
from collections import Counter

from longcot import chat
from longcot.grade import extract_math
from longcot.rows import Trace

# ---- the teacher

_MATH = r"Solve the problem below. Put the final answer, and only that, inside \boxed{}."
_CHOICE = (
    r"Answer the question below. Put the letter of your choice, and only that, inside \boxed{}."
)
_EXACT = "Answer the question below. When you are done thinking, write the answer and nothing else."
_PROGRAM = (
    "Write a Python 3 program for the task below. It reads all input from standard input and prints "
    "the result to standard output. End your answer with the whole program in one ```python block."
)
_FUNCTION = (
    "Write Python 3 code for the task below. It is tested by calling {name}, so keep that name and "
    "its arguments. End your answer with the whole code in one ```python block."
)
_STARTER = "Begin from this code:\n\n```python\n{code}\n```"


def teacher_prompt(question: dict) -> str:
    """The user turn of a question row: the instruction of its kind, the problem, starter code."""
    kind, starter = question["kind"], question["starter_code"]
    if kind == "code":
        test = question["tests"][0]
        name = f"`{test['fn_name']}`" if "fn_name" in test else "what the task names"
        is_program = "fn_name" not in test and "assert" not in test
        instruction = _PROGRAM if is_program else _FUNCTION.format(name=name)
    else:
        instruction = {"choice": _CHOICE, "exact": _EXACT}.get(kind, _MATH)
    parts = [instruction, question["problem"].strip()]
    if starter:
        parts.append(_STARTER.format(code=starter.strip("\n")))
    return "\n\n".join(parts)


# ---- the difficulty judge

_DIFFICULTY = """\
You grade how hard a mathematics problem is, on the scale of school and contest mathematics below.
Judge the shortest solution a well-trained solver would find, not the length of the text. Do not
solve the problem in full; name the idea it needs, compare it with the scale, then decide.

 1  One step of arithmetic. "A box holds 12 eggs. How many eggs are in 5 boxes?"
 2  Two or three routine steps. "A coat costs 80 after a discount of 20%. What did it cost before?"
 3  A standard school method, done carefully. "Find the sum of the roots of 2x^2 - 9x + 4 = 0."
 4  A standard method with a twist, or two methods joined. "How many three-digit numbers have
    digits that add up to 5?"
 5  The middle of a national contest's first round: one idea that has to be found. "How many zeros
    end the decimal form of 125! ?"
 6  The last problems of such a round: two ideas, or careful casework. "In how many ways can a
    2 by 10 strip be covered with 1 by 2 dominoes and 2 by 2 squares?"
 7  A short-answer final for the best of a country: an uncommon idea and long, exact work.
 8  An easy problem of a national olympiad, where a proof is expected.
 9  A hard problem of a national olympiad, or an easy one of the international olympiad.
10  A hard problem of the international olympiad, which only a few contestants solve.

End with one whole number from 1 to 10 in double square brackets.

Example. Problem: "The sides of a right triangle are whole numbers and one leg is 7. Find the
hypotenuse." Grade: the difference of two squares is 49, so its factors settle it; one small idea
after a standard theorem, as at level 3 or 4. The idea is common. [[3]]

Problem:

"""
_SCORE = re.compile(r"\[\[([^\[\]]*)\]\]")


def difficulty_messages(problem: str) -> list[dict]:
    """The chat in which a judge model grades one problem from 1 to 10."""
    return [{"role": "user", "content": _DIFFICULTY + problem.strip()}]


def read_difficulty(text: str) -> int | None:
    """The last [[n]] after the judge's thought, a whole number from 1 to 10; None for anything else."""
    scores = _SCORE.findall(chat.split(text).solution)
    score = scores[-1].strip() if scores else ""
    return int(score) if re.fullmatch(r"[1-9]|10", score) else None


# ---- the rewriter

_REWRITE = """\
You edit the layout of worked solutions. You are given one text in which somebody thinks a problem
through and answers it. Write the same text again in two parts:

<|begin_of_thought|>

(the thinking: every attempt, doubt, check, mistake and correction, in the order of the text)

<|end_of_thought|>

<|begin_of_solution|>

(the clean final solution that the thinking arrives at, with its \\boxed{} answer or code block)

<|end_of_solution|>

Rules
- Copy nearly word for word. Drop nothing, shorten nothing, correct nothing, even if it is wrong.
- Numbers, formulas, code and the final answer stay exactly as they are.
- Put a blank line between two steps of the thinking.
- If the text ends with a summary or a final answer, that is the solution. If it does not, the
  solution repeats the last steps and the answer.
- Use each of the four tags once. Write nothing before the first tag and nothing after the last."""
_EXAMPLE = (
    """\
I need two numbers with sum 20 and difference 6. Say x and y. x + y = 20, x - y = 6, adding gives
2x = 26, x = 12. Hmm wait, 26/2 is 13, not 12. So x = 13 and then y = 7. Check: 13 + 7 = 20, good,
13 - 7 = 6, good. The larger number is half of 20 + 6 = 26, so the answer is \\boxed{13}.""",
    """\
<|begin_of_thought|>

I need two numbers with sum 20 and difference 6. Say x and y.

x + y = 20, x - y = 6, adding gives 2x = 26, x = 12.

Hmm wait, 26/2 is 13, not 12. So x = 13 and then y = 7.

Check: 13 + 7 = 20, good, 13 - 7 = 6, good.

<|end_of_thought|>

<|begin_of_solution|>

The larger number is half of 20 + 6 = 26, so the answer is \\boxed{13}.

<|end_of_solution|>""",
)
MAX_LOST = 0.05  # share of the trace's words that the rewrite may lack
MAX_ADDED = 0.5  # words the rewrite may have beyond the trace's; the solution may repeat its end
_WORD = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")
_TAGS = tuple(vars(chat.FORMATS["thought_solution"]).values())
_LAYOUT = re.compile(r"\s*{}(.*){}\s*{}(.*){}\s*".format(*map(re.escape, _TAGS)), re.DOTALL)
_FENCE = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)


def rewrite_messages(trace_text: str) -> list[dict]:
    """The chat in which a model lays out one trace: rules, a worked example, the trace."""
    return [
        {"role": "system", "content": _REWRITE},
        {"role": "user", "content": _EXAMPLE[0]},
        {"role": "assistant", "content": _EXAMPLE[1]},
        {"role": "user", "content": trace_text.strip()},
    ]


def check_rewrite(original: str, rewritten: str) -> str | None:
    """Why a rewrite must be rejected, or None: tags, final answer, last code block, lost or added
    words, changed numbers. Words are counted, their order is not compared."""
    trace = Trace("", "", None, (("user", ""), ("assistant", rewritten)))
    if fault := chat.fault(trace, "thought_solution"):
        return f"rewrite: {fault}"
    parts = _LAYOUT.fullmatch(rewritten)
    if not parts or any(rewritten.count(tag) != 1 for tag in _TAGS):
        return "rewrite: text outside the tags, or a tag twice"
    thought, solution = parts.groups()
    answer, way = extract_math(original)
    blocks = _FENCE.findall(original)
    if way == "last box":
        kept, found = extract_math(solution)
        if found != "last box":
            return "rewrite: the boxed answer is lost"
        if _folded(kept) != _folded(answer):
            return "rewrite: the boxed answer is changed"
    elif blocks and _folded(blocks[-1]) not in map(_folded, _FENCE.findall(solution)):
        return "rewrite: the last code block is lost or changed"
    before, after = _count(original), _count(f"{thought}\n{solution}")
    lost, added = before - after, after - before
    if lost.total() > MAX_LOST * before.total():
        return "rewrite: words are lost"
    if added.total() > MAX_ADDED * before.total() + 50:
        return "rewrite: words are added"
    numbers = [word for word in lost if word[0].isdigit()]
    is_new = any(word[0].isdigit() and word not in before for word in added)
    if numbers and (is_new or any(word not in after for word in numbers)):
        return "rewrite: numbers are lost or changed"
    return None


def _count(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def _folded(text: str | None) -> str:
    return "".join((text or "").split())


def fingerprint() -> str:
    """Hash of every wording above: rows made with other words are not mixed with these."""
    row = {"problem": "p", "starter_code": "c"}
    tests = {"math": None, "choice": None, "exact": None, "code": [{"input": "", "output": ""}]}
    asked = [teacher_prompt({**row, "kind": kind, "tests": test}) for kind, test in tests.items()]
    called = teacher_prompt({**row, "kind": "code", "tests": [{"fn_name": "f"}]})
    words = repr([asked, called, difficulty_messages("p"), rewrite_messages("t")])
    return hashlib.sha256(words.encode()).hexdigest()[:16]
