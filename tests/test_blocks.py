"""What must stay in one piece is found, and only that."""

import pytest

from longcot import blocks


def found(text: str) -> list[str]:
    spans = blocks.find(text)
    assert all(a < b for a, b in spans)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:]))
    return [text[start:end].strip("\n") for start, end in spans]


@pytest.mark.parametrize(
    "block",
    [
        "```python\nx = 1\n\nWait, y\n```",
        "````\n```\nWait\n```\n````",
        "~~~\n```\n~~~",
        "```\na\n``` b\n\nWait\n```",
        "\\[\nx = 1.\n\nWait, y\n\\]",
        "\\[ a \\\\[2pt] b \\]",
        "$$\nx\n\nWait\n\n$$",
        "\\begin{align*}\nx\n\\begin{cases} 1 \\end{cases}\n\\end{align*}",
        "| a | b |\n|---|---|\n| 1. Wait | 2 |",
        "a | b\n--- | ---\n1. Wait | 2",
        "<pre>\nx. Wait\n</pre>",
        "<a><a>1</a>\n\nWait</a>",
        "<a><b></a></b>",
        '<img src="x. Wait, y">',
        "<br />",
    ],
)
def test_a_block_is_found_alone_between_texts_and_at_the_end(block):
    assert found(block) == [block]
    assert found(f"One.\n\n{block}\n\nTwo < 3 | x. Wait, no.") == [block]
    assert found(f"One.\n{block}\nTwo.\n\n{block}") == [block, block]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\n ",
        "Wait, |x| is 3.\n\nLet me check a < b and c > d.",
        "```x``` stands in a line",
        "A price of $5. Wait, $6.",
        "\\(x\\) and \\] and \\end{x} alone",
        "5 </a",
        "|x| is 3. Wait, no.\n|y| is 4. Hmm.",
    ],
)
def test_nothing_else_is_a_block(text):
    assert blocks.find(text) == []


def test_what_is_left_open_ends_at_the_end_or_at_a_blank_line():
    assert found("One.\n\n```\nx\n\nWait") == ["```\nx\n\nWait"]
    for opens in ("\\[", "$$", "\\begin{align}"):
        assert found(f"One. {opens} x\ny\n\nWait, two.") == [f"{opens} x\ny"]
        assert found(f"One. {opens} x\ny") == [f"{opens} x\ny"]
    assert found("One <b>two\n\nWait, three.") == ["<b>"]


def test_a_stray_mark_takes_nothing_from_the_right_ones():
    assert found("Costs $$5.\n\nWait.\n\n$$x$$\n\nNext.\n\n$$y$$") == ["$$x$$", "$$y$$"]
    assert found("A \\[ stray.\n\nWait.\n\n\\[x\\]\n\nNext.") == ["\\[x\\]"]
    assert found("A <a> stray.\n\nWait.\n\n<a>1</a>") == ["<a>", "<a>1</a>"]
    assert found("```\n\\[ $$ <a> |\n```\n\nWait. \\]\n\n$$x$$") == [
        "```\n\\[ $$ <a> |\n```",
        "$$x$$",
    ]


def test_a_wrapper_of_the_thought_is_no_block_but_its_tags_are():
    assert found("<think>\n\nOne.\n\nWait.\n\n</think>") == ["<think>", "</think>"]
