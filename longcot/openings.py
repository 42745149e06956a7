"""How a step of a thought opens: doubt, a check, a way back, a new attempt, a new case or item."""

import re

OPENING = 100  # characters of a step that tell how it opens


def kind(step: str) -> str | None:
    """ "reflection", "backtracking", "validation", "alternative" or None.

    After a "Wait," or "Hmm," what follows decides: "Wait, let me check" is a validation.
    """
    found = _REFLECTS.match(step[:OPENING].lower())
    told = found.lastgroup if found else None
    return "reflection" if told == "doubt" else told


def is_item(paragraph: str) -> bool:
    """Whether a paragraph opens with a number, a label, a heading or a word such as "Next"."""
    return _OPENS.match(paragraph[:OPENING].lower()) is not None


def is_labelled(line: str) -> bool:
    """Whether a line opens with a label such as "Case 2" or "Step 3:"."""
    return _LABELLED.match(line[:OPENING].lower()) is not None


_Q = r"['\u2019]"
_GO = rf"""(?:let(?:{_Q}s|\s+me|\s+us)
    |i(?:{_Q}(?:ll|d)|\s+(?:will|can|could|should|might|need\s+to|want\s+to|have\s+to)))
    \s+(?:(?:just|also|quickly|now|first|maybe|probably|instead|carefully)\s+)?"""
_THIS = r"(?:that|this|it|which)"
_IS = rf"(?:{_Q}s|\s+is|\s+was|\s+seems|\s+looks|\s+feels)"
_KINDS = rf"""
(?P<backtracking>(?:
    no(?=[,.!:;\u2026\u2013\u2014-]|\s*$|\s+(?:wait|that|this|it)\b)
    | {_THIS}{_IS}\s+(?:not\s+(?:right|correct|possible|quite|helpful|working|true|it)
        |wrong|incorrect|impossible|a\s+(?:mistake|contradiction))
    | {_THIS}\s+(?:can{_Q}t|cannot|doesn{_Q}t|does\s+not|didn{_Q}t|won{_Q}t|isn{_Q}t|wasn{_Q}t)
        \s+(?:be|seem|look|work|make|match|help|right|correct|fit|add|possible)
    | i\s+(?:think\s+i\s+|must\s+have\s+|may\s+have\s+|might\s+have\s+|probably\s+)?
        (?:made|was\s+wrong|messed|forgot|misread|miscalculated|misunderstood|overlooked|missed)
    | my\s+(?:mistake|bad) | scratch\s+that | never\s*mind | not\s+(?:quite|right)
    | {_GO}(?:go\s+back|start\s+(?:over|again)|restart|redo|backtrack|correct|fix|revise|retry
        |begin\s+again|step\s+back|return\s+to|revisit)
    | going\s+back | starting\s+(?:over|again|from\s+scratch) | back\s+to
    | there(?:{_Q}s|\s+is|\s+must\s+be)\s+(?:a|an|some)\s+(?:mistake|error|contradiction))\b)
|(?P<validation>(?:
    {_GO}(?:double[-\s]?check|re-?check|check|verify|confirm|validate|test|make\s+sure|ensure
        |be\s+sure|re-?calculate|re-?compute|review|see\s+(?:if|whether))
    | (?:just\s+)?to\s+(?:double[-\s]?check|check|verify|confirm|validate|ensure|make\s+sure
        |be\s+(?:sure|safe|certain|thorough|extra))
    | (?:double[-\s]?|re-?)?check(?:ing)? | verify(?:ing)? | verification | confirming
    | (?:as\s+a\s+)?(?:quick|sanity|final)\s+check | is\s+{_THIS}\s+(?:right|correct)
    | does\s+{_THIS}\s+(?:make\s+sense|work|hold|match|satisfy))\b)
|(?P<alternative>(?:
    alternatively | maybe | perhaps | instead(?!\s+of) | what\s+if | on\s+the\s+other\s+hand
    | another\s+(?:way|approach|method|idea|thought|possibility|option|angle|strategy)
    | (?:(?:an?|some|one)\s+)?(?:different|alternative|better|simpler|other)\s+
        (?:way|approach|method|idea|strategy)
    | {_GO}(?:try|attempt|experiment|explore|approach
        |(?:consider|use|find)\s+(?:another|a\s+different|an\s+alternative)
        |(?:look\s+at|think\s+(?:about|of))\s+(?:this|it|that)\s+(?:differently|another|from))
    | could\s+it\s+be | trying\s+(?:another|a\s+different)
    | (?:is\s+there|there\s+(?:must|might|should|has\s+to)\s+be)\s+(?:another|an?|any)\s+
        (?:better|other|easier|simpler|different|smarter|way))\b)
|(?P<reflection>(?:
    {_GO}(?:think|see|re-?think|reconsider|re-?examine|re-?read|re-?evaluate|reflect|pause
        |look\s+(?:again|back|closer))
    | i(?:{_Q}m|\s+am)\s+(?:(?:not|so|still|really|entirely|completely|too|a\s+bit)\s+){{0,3}}
        (?:sure|certain|convinced|confused|unsure|stuck|missing|overcomplicating|wondering)
    | i\s+(?:wonder|doubt) | (?:am|did|do|have)\s+i | on\s+second\s+thoughts?
    | (?:looking|thinking)\s+(?:back|again) | come\s+to\s+think | interesting
    | {_THIS}{_IS}\s+(?:(?:a\s+bit|very|quite|really|so)\s+)?(?:weird|strange|odd|off))\b)
"""
_BETWEEN = r"\b[,.!?:;\u2026\u2013\u2014*_-]{0,4}\s*"
_TURN = r"(?:but|so|and|or|okay|ok|now|well|alright|right|yes|yeah|again|also|then|however|still)"
_DOUBT = r"""(?:wait(?:\s+(?:a|one)\s+(?:minute|second|moment|sec))?|hm+|oh|ah|oops|actually
    |hold\s+on|hang\s+on|uh|um)"""
_LEAD = r"[*_\"'\u201c\u2018(\[]{0,4}"  # emphasis, quotes, brackets
_TURNS = rf"(?:{_TURN}{_BETWEEN}){{0,2}}"
_REFLECTS = re.compile(
    rf"{_LEAD}{_TURNS}(?P<doubt>(?:{_DOUBT}{_BETWEEN}){{1,3}})?{_TURNS}(?:{_KINDS})?",
    re.VERBOSE,
)
_COUNTED = r"(?:\d{1,3}|[ivx]{1,5}|[a-z]|one|two|three|four|five)"
_LABEL = rf"""(?:case|subcase|step|part|method|approach|attempt|option|scenario|possibility|stage
    |phase|round|way|example|item)\s+{_COUNTED}\b"""
_LABELLED = re.compile(rf"[*_\#\s]{{0,8}}{_LABEL}", re.VERBOSE)
_OPENS = re.compile(
    rf"""{_LEAD}(?:(?:so|and|but|okay|alright),?\s+)?(?:
    \(?{_COUNTED}\)[\s.:*] | (?:\d{{1,3}}|[ivx]{{1,5}}|[a-z])\.\**\s | {_LABEL}
    | (?:first|second|third|fourth|fifth|sixth)(?:ly\b|\s+(?:off|case|step|part|approach|method)|[,:])
    | (?:next|now|finally|lastly)\b | (?:moving|turning)\s+(?:on|to)\b
    | (?:for|in|consider)\s+the\s+(?:first|second|third|next|other|last|remaining)\b
    | the\s+(?:first|second|third|next|other|last|remaining)\s+(?:case|step|part|thing|one)\b
    | (?:(?:now|let{_Q}s|let\s+us|let\s+me)\s+)?(?:suppose|assume|assuming)\b
    | let(?:{_Q}s|\s+us|\s+me)\s+(?:start|begin|move\s+on|proceed|turn|tackle)\b
    )|\#{{1,6}}\s|\*\*[^*\n]{{1,80}}\*\*:?[ \t]*(?:\n|$)""",
    re.VERBOSE,
)
