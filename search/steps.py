"""Where the steps of a solution end, as language models write them: read line by line, pure text, no tokens.

A blank line ends a step. Not inside a code fence or a display formula, and not after what only announces something: a
head ("Step 1:", "**Step 2**", "### Step 3: Compute the total"), or a paragraph that ends with a colon. These belong to
what follows. An answer that looks like a head ("**18**", "### Final answer: 7") is a step.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

BLANK_LINE = "\n\n"
"""The stop string that stands for all of this; any other stop string is looked for as it is."""

THOUGHT_TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "◁think▷": "◁/think▷",
}
"""How models write that they think, and that they are done with it."""

_LONGEST_HEAD = 200
"""Characters beyond which a line is read as a paragraph, whatever it looks like."""

_MARKER = r"(?:>[ \t]*)*(?:(?:[-*+•]|\(?\d{1,3}[.)])[ \t]+)?"
"""What may stand before a line's content: quotation marks of markdown, then a list's bullet or number."""

_FENCE = re.compile(rf"[ \t]*{_MARKER}(`{{3,}}[^`]*$|~{{3,}}.*)")
"""CommonMark's opening fence, at any indentation, since models indent fences with the list around them."""

_DISPLAYS = "equation|align|alignat|gather|multline|flalign|eqnarray|displaymath|math|aligned|alignedat|gathered|split"
_DELIMITER = re.compile(
    r"\\\\"  # a line break of LaTeX, whose second half would open a formula before a bracket
    r"|(?P<code>`+)(?!`).*?(?<!`)(?P=code)(?!`)"
    r"|\\\$"
    r"|\\\[|\\\]|\$\$"
    rf"|\\begin\{{(?P<begin>(?:{_DISPLAYS})\*?)\}}|\\end\{{(?P<end>(?:{_DISPLAYS})\*?)\}}"
)

_TAG = re.compile("|".join(map(re.escape, (*THOUGHT_TAGS, *THOUGHT_TAGS.values()))))

_NUMBER = r"(?:\d{1,3}|[IVX]{1,5}|[A-Z]|one|two|three|four|five|six|seven|eight|nine|ten)"
_LABEL = re.compile(rf"(?:step|part|case|phase|stage)\s*#?{_NUMBER}(?![a-z])\s*[-:.)\u2013\u2014]*\s*", re.IGNORECASE)
_RULE = re.compile(r"[-*_=#\s]*")
_ITEM = re.compile(_MARKER)
_HEADING = re.compile(r"#{1,6}(?:[ \t]+|$)")
_BOLD = re.compile(r"(\*\*\*|\*\*|__)(?=\S)((?:(?!\1).)+)\1\s*[:\uff1a]?")
_ANSWER = re.compile(r"boxed\b|\banswer\b[^:=]*?(?:[:=\uff1a]|\bis\b)[\s*_]*[^\s*_:]", re.IGNORECASE)
_SIGNED = r"[\s*$€£\\({\[]*[-+\u2212]?\.?\d"
_VALUE = re.compile(rf"{_SIGNED}|.*(?:[=≈→]|\b(?:is|are|was|equals?|gives)\b){_SIGNED}")
_ORDER = re.compile(
    r"(?:calculat|comput|determin|find|identif|subtract|multipl|divid|add|convert|appl|us(?=e\b)|set|solv|simplif|"
    r"understand|analy[sz]|substitut|combin|compar|check|verif|provid|writ(?=e\b)|express|sum|list|defin|conclu|final)",
    re.IGNORECASE,
)
_OPENER = re.compile(
    r"(?:(?:sure|certainly|okay|ok|alright|great|of course|first|now|so|next)[,!.:]?\s+)*"
    r"(?:let['\u2019]?s|let us|(?:we|i)(?: will|['\u2019]ll| can)|here(?:['\u2019]s| is| are)|"
    r"to (?:solve|find|determine|answer|calculate))\b"
    r"(?!.*\b(?:denote|assume|suppose|call|say|define|represent)\b)"
    r".*\b(?:step|steps|break|start|begin|go|walk|work|solve|solution|follow|following|python|code|think)\b",
    re.IGNORECASE,
)


def is_head(line: str) -> bool:
    """Whether a line says nothing by itself but only heads what follows; a line without words is one too.

    Lines that end with a colon are not looked for here: they announce, even at the end of a paragraph.
    """
    text = line.strip()
    if _RULE.fullmatch(text):
        return True
    if len(text) > _LONGEST_HEAD:
        return False
    text = _ITEM.sub("", text, count=1)
    heading = _HEADING.match(text)
    if heading:
        text = text[heading.end() :].rstrip("# \t")
        text = _ITEM.sub("", text, count=1)
    bold = _BOLD.fullmatch(text)
    text = text.strip("*_ \t")
    if _ANSWER.search(text):
        return False
    label = _LABEL.match(text)
    if label:
        rest = text[label.end() :].strip("*_ \t")
        if not rest or heading or bold:
            return True
        title = not rest.endswith((".", "!", "?")) or bool(_ORDER.match(rest))
        return title and not any(character.isdigit() or character in "=\\" for character in rest)
    if heading or bold:
        return not _VALUE.match(_ITEM.sub("", text, count=1))
    one_sentence = not re.search(r"[.!?]\s+[A-Z]", text[_sure(text) :])
    return one_sentence and bool(_OPENER.match(text)) and not re.search(r"[\d=\\]", text)


def _sure(text: str) -> int:
    """Where a sentence begins after a polite word: "Sure! Let's begin." is one sentence."""
    found = re.match(r"(?:sure|certainly|okay|ok|alright|great|of course)[,!.:]?\s+", text, re.IGNORECASE)
    return found.end() if found else 0


@dataclass(slots=True)
class StepReader:
    """Reads a solution as it is written and says where its steps end. What it has to remember is small.

    Attributes:
        line: the line that is not complete yet.
        old: how many of its bytes belong to steps before this one.
        body: whether the step has said something.
        announces: whether its last line ended with a colon.
        fence: what opened the code fence it is in; empty outside of one.
        display: what closes the display formula it is in; empty outside of one.
        thought: what closes the thought it is in; empty outside of one.
    """

    line: bytes = b""
    old: int = 0
    body: bool = False
    announces: bool = False
    fence: str = ""
    display: str = ""
    thought: str = ""

    @classmethod
    def after(cls, prompt: str) -> StepReader:
        """One that reads what follows a prompt, which may have opened a thought."""
        return cls(thought=THOUGHT_TAGS.get(open_thought(prompt), ""))

    @property
    def open_thought(self) -> str:
        """What closes the thought in which the text stands; empty outside of one."""
        ahead = self.copy()
        ahead._follow_tags(self.line.decode("utf-8", "replace"))
        return ahead.thought

    def copy(self) -> StepReader:
        """One that reads on from here by itself."""
        return replace(self)

    def feed(self, text: bytes) -> bool:
        """Read on; whether a blank line stood in `text` that ends the step. Who ends it there says so by `cut`."""
        ended = False
        *lines, rest = (self.line + text).split(b"\n")
        for line in lines:
            ended = self._read(line.decode("utf-8", "replace"), bool(line[self.old :].strip())) or ended
            self.old = 0
        self.line = rest
        return ended

    def cut(self) -> None:
        """The step ends with the last byte that was read."""
        self.body = self.announces = False
        self.old = len(self.line)

    def _read(self, line: str, new: bool) -> bool:
        """Read a complete line, of which this step wrote something or not; whether it is a blank one that ends it."""
        if _TAG.search(line):
            line, new = self._follow_tags(line), new and bool(_TAG.sub("", line).strip())
            if not line.strip():
                return False
        if self.fence:
            content = line.strip(" \t>\r")
            if len(content) >= len(self.fence) and not content.strip(self.fence[0]):
                self.fence = ""
            self.body = self.body or new
            return False
        if not line.strip():
            return self.body and not self.announces and not self.display
        opened = _FENCE.match(line)
        if opened:
            mark = opened.group(1)
            self.fence = mark[: len(mark) - len(mark.lstrip(mark[0]))]
            self.display = ""
        else:
            inside = bool(self.display)
            self._find_displays(line)
            self.announces = not inside and line.rstrip().rstrip("*_").endswith((":", "\uff1a"))
            if not inside and not self.display and (self.announces or is_head(line)):
                return False
        self.announces = False
        self.body = self.body or new
        return False

    def _follow_tags(self, line: str) -> str:
        """Follow the thoughts that a line opens and closes; returns the line without these tags.

        Code and formulas that a thought left open end with it.
        """

        def follow(found: re.Match[str]) -> str:
            tag = found.group()
            if tag == self.thought or (not self.thought and tag not in THOUGHT_TAGS):
                self.thought = self.fence = self.display = ""
            elif not self.thought and not self.fence:
                self.thought = THOUGHT_TAGS[tag]
            else:
                return tag
            return ""

        return _TAG.sub(follow, line)

    def _find_displays(self, line: str) -> None:
        """Follow the formulas that a line closes and opens."""
        for found in _DELIMITER.finditer(line):
            mark = found.group()
            if self.display:
                if mark == self.display:
                    self.display = ""
            elif mark == "\\[":
                self.display = "\\]"
            elif found["begin"]:
                self.display = f"\\end{{{found['begin']}}}"
            elif mark == "$$" and self._opens(line, found.start(), found.end()):
                self.display = "$$"

    @staticmethod
    def _opens(line: str, start: int, end: int) -> bool:
        """Whether two dollars open a formula and are no slip: they stand at an end of the line, or are closed on it."""
        at_start = not _ITEM.sub("", line[:start].lstrip(), count=1).strip()
        return at_start or not line[end:].strip() or "$$" in line[end:]


def line_end_tokens(max_step_tokens: int) -> int:
    """Tokens of a step from which on it ends at any line's end: three quarters of its limit, rounded up."""
    return max_step_tokens - max_step_tokens // 4


def open_thought(prompt: str) -> str:
    """The tag at a prompt's end by which it opens a thought for the model; empty where it opens none."""
    text = prompt.rstrip()
    return next((opening for opening in THOUGHT_TAGS if text.endswith(opening)), "")


def part_thoughts(text: str) -> tuple[str, str]:
    """What a solution thinks, without its tags, and what it says besides; an open thought goes to the text's end."""
    thoughts, spoken, closing, at = "", "", "", 0
    for found in _TAG.finditer(text):
        tag, before = found.group(), text[at : found.start()]
        if closing:
            if tag == closing:
                thoughts, closing, at = thoughts + before, "", found.end()
        elif tag in THOUGHT_TAGS:
            spoken, closing, at = spoken + before, THOUGHT_TAGS[tag], found.end()
        else:  # it was open from the start
            thoughts, spoken, at = text[: found.start()], "", found.end()
    if closing:
        thoughts += text[at:]
    else:
        spoken += text[at:]
    return thoughts.lstrip("\r\n"), spoken.lstrip("\r\n")


def without_thoughts(text: str) -> str:
    """What a solution says besides its thoughts; one that was never closed goes to the text's end."""
    return part_thoughts(text)[1]


def split_steps(text: str) -> list[str]:
    """The steps of a whole solution; put together they are the text.

    A search cuts at the token in which a step ends, which may hold a little of the next one.
    """
    reader, steps, start, at = StepReader(), [], 0, 0
    for line in text.split("\n")[:-1]:
        at += len(line) + 1
        if reader.feed(line.encode("utf-8", "replace") + b"\n"):
            reader.cut()
            steps.append(text[start:at])
            start = at
    rest = text[start:]
    if steps and not rest.strip():
        steps[-1] += rest
    elif rest:
        steps.append(rest)
    return steps
