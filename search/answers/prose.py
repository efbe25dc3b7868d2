"""Sentences: where they end, and the number that a closing sentence comes to."""

from __future__ import annotations

import re

from search.answers.visible import last_match

_STOP = re.compile(r"[.!?](?=\s|$)|[。！？।]")
_TITLES = re.compile(
    r"(?:mr|mrs|ms|dr|prof|rs|st|mt|jr|sr|vs|fig|eq|eqs|approx|ca|cf|e\.g|i\.e|"
    r"resp|vol|sec|gen|col|lt|sgt|rev|hon)"
)
_UNITS = re.compile(
    r"(?:in|ft|yd|mi|lb|lbs|oz|sq|cu|pt|qt|gal|hr|hrs|min|mins|sec|secs|a\.m|p\.m|u\.s|"
    r"u\.k|inc|ltd|co|corp|etc|ex|no|nos)"
)
_BEFORE = re.compile(r"[A-Za-z][A-Za-z.]{0,7}$")

_DIGITS = r"(?:[0-9]{1,3}(?: [0-9]{3})+(?![0-9])|[0-9][0-9,]*)(?:\.[0-9]+)?"
_NUMBER = re.compile(
    r"(?<![\w.^_{\\])(?<!not )"
    r"(?P<sign>[-−–](?=[\\$€£¥]?[0-9\\]))?(?P<money>\\?[$€£¥₹]\s?)?"
    rf"(?P<value>-?{_DIGITS}(?:\s?/\s?{_DIGITS})?|(?:{_DIGITS}\s?)?\\[dt]?frac\{{[0-9]+\}}\{{[0-9]+\}})"
    r"(?P<percent>\s?\\?%)?(?!\w|[.,]?[0-9]|st\b|nd\b|rd\b|th\b)"
)
_CALLED = re.compile(
    _NUMBER.pattern + r"[*$)\\]{0,4}\s(?:\w{1,15}\s){0,2}is\s(?:the|our|my)\s(?:final\s|correct\s)?answer\b"
)
_ROUNDED = re.compile(r"\bround(?:s|ed|ing)?\s(?:up\s|down\s|it\s){0,2}to\s(?=\\?\$?[0-9])")
_OPERATOR = re.compile(
    r"\s{0,3}\\?\$?\s{0,3}(?:[-+*/×÷·−]|\\times|\\div|\\cdot|x(?=\s?\$?[0-9]))\s{0,3}\\?\$?\s{0,3}(?=[\\$(0-9])"
)
_EQUALS = re.compile(r"(?:=|≈|\\approx)\s{0,3}")
_LABEL = re.compile(
    r"(?:[#>*_\s]{0,8})(?:[-•+]\s|\d{1,2}[.)]\s|\(\d{1,2}\)\s)?[*_\s]{0,4}"
    r"(?:(?:step|part)\s\d{1,2}[*_]{0,2}[:.]?\s)?",
    re.IGNORECASE,
)
_OPENS = re.compile(
    r"(?:first|next|initially|to\s|let|take|given|now|assume|suppose|we\s(?:need|can|will|are|know|have)|if\s|start|consider|"
    r"every\s|note|remember|recall|step|here|for\s(?:example|instance)|how|what|where|why|when\s|who|should|calculate|find|determine)",
    re.IGNORECASE,
)
_FIRST = re.compile(r"\W{0,8}(?:first|to begin|to start)\b", re.IGNORECASE)
_CONCLUDES = re.compile(
    r"(?:[\s,]|and|but)*\b(?:so|therefore|thus|hence|consequently|accordingly|altogether|in total|in all|overall|"
    r"finally|in conclusion|to conclude|this means|that means|which means|as a result|in the end|I think|I believe|"
    r"that is|ultimately)\b",
    re.IGNORECASE,
)
_CLOSING_WORD = re.compile(
    r"(?:this|that|it|which)\sis\s(?:the|our|my)\s(?:final\s|correct\s)?(?:answer|result|solution)|i\shope|let\sme\sknow|"
    r"(?:this|that|it)\s(?:checks|is\scorrect|matches)|hope\sthis|feel\sfree|good\sluck|great|done\b|q\.e\.d",
    re.IGNORECASE,
)
_LEADING = re.compile(
    r"(?:when|if|since|because|as|after|before|with|given|for|at|by|in|on|of|out of|from|while|once|starting|adding|"
    r"subtracting|dividing|multiplying)\b[^,]{1,200},\s",
    re.IGNORECASE,
)
_RESULT = re.compile(
    r",?\s(?:so(?!\s(?:that|many|much|far)\b)|therefore|thus|hence|meaning|which means|leaving|giving|that is|or)\s"
)
_TRAILING = re.compile(
    r",\s(?:which|because|since|as|so|where|when|and|but|while|given|compared)\b|"
    r"\s(?:because|since|before|after|if|when|than|out\sof|instead|compared|in\sorder|while|until|from|per|over|every|each|for|in|with|on|at|by)\s"
)
_COPULA = re.compile(
    r"\b(?:is|are|was|were|be|equals?|has|have|had|makes?|made|needs?|costs?|gets?|got|spends?|spent|pays?|paid|earns?|"
    r"earned|takes?|took|total\sof|leaves?|left|gives?|receives?|received|becomes?|to|answer)\s"
    r"(?:(?:a\stotal\sof|about|approximately|around|only|just|exactly|now|still|at\sleast|at\smost|an?\sadditional|another)\s)?"
    r"(?:[*_$]{0,3}\\?\(?\s?)$",
    re.IGNORECASE,
)
_MAY_GO_ON = re.compile(r"\s{0,40}(?:[-•*]|\d{1,2}[.)])\s.*[0-9]\.?$|\s{0,40}\S{1,20}$")
"""A point of a list that ends with a number, and a word alone: the text may have been cut off within either."""

_BREAKS_OFF = re.compile(r"\n[ \t]{0,40}\n\s{0,40}$|\n[ \t]{1,40}$")
"""A blank line or an indent after which something was to come."""

_PLAN = re.compile(
    r"\b(?:we(?:'ll|’ll| will| must| need to| have to| can| should)|let's|let us)\s(?:now |then |first |also )?"
    r"(?:find|determine|calculate|compute|figure|add|subtract|multiply|divide|use|solve)\b",
    re.IGNORECASE,
)
_TIME = r"(?:years?|months?|weeks?|days?|hours?|hrs?|minutes?|mins?|seconds?|secs?)"
_COMPOUND = re.compile(
    r"(?<![\w.])[0-9]+\s(?:"
    rf"{_TIME}(?:,\s|\sand\s|,\sand\s|\s)[0-9]+\s{_TIME}(?:(?:,\s|\sand\s|,\sand\s|\s)[0-9]+\s{_TIME})?"
    r"|(?:feet|foot)(?:\sand)?\s[0-9]+\sinch(?:es)?|pounds?(?:\sand)?\s[0-9]+\sounces?|dollars?(?:\sand)?\s[0-9]+\scents?"
    r"|met(?:er|re)s?(?:\sand)?\s[0-9]+\scentimet(?:er|re)s?|kilograms?(?:\sand)?\s[0-9]+\sgrams?)\b"
)
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")
_TAIL_CHARS = 3000


def sentence_end(line: str) -> int:
    """Where the first sentence of a line ends: an abbreviation or an initial ends none."""
    for stop in _STOP.finditer(line):
        if stop.group() != "." or not line[stop.end() :].strip() or not _abbreviates(line, stop.start()):
            return stop.start()
    return len(line)


def conclusion(text: str, ended: bool) -> str | None:
    """The number to which the closing sentence of a solution comes; None where that is no conclusion, or unclear.

    Args:
        text: as a reader sees it.
        ended: the text is known to be whole; else only a sentence that is surely finished is read.
    """
    tail = text[-_TAIL_CHARS:]
    body = tail.rstrip(" \t\r\n*_")
    if not body or (not ended and (_BREAKS_OFF.search(tail) or not body.endswith((".", "!", "。", "！")))):
        return _lone(text, ended)
    if _in_formula(body):
        return None
    line = body[body.rfind("\n") + 1 :]
    closing = False
    for _ in range(3):
        for sentence in reversed(_sentences(line)):
            if sentence.rstrip().endswith(("?", ":")):
                return None
            if _NUMBER.search(sentence):
                # What only goes first, and a number that may go on, take a word that concludes.
                doubtful = _FIRST.match(line) or not (ended or closing or not _MAY_GO_ON.match(line))
                return None if doubtful and not _CONCLUDES.match(sentence) else _concluded(sentence)
            if not _CLOSING_WORD.match(sentence.strip()):
                return None
            closing = True
        body = body[: len(body) - len(line)].rstrip()
        if not closing or not body:
            return None
        line = body[body.rfind("\n") + 1 :]
    return None


def number_in(sentence: str) -> str | None:
    """The number or the compound quantity ("2 hours 30 minutes") that a sentence states.

    None where it has none, several of which none stands out, or a sum that is not worked out.
    """
    bold = [found for found in _BOLD.findall(sentence) if _NUMBER.search(found)]
    if len(bold) == 1:
        sentence = bold[0]
    called = _CALLED.search(sentence)
    if called is not None:
        return _written(called)
    for part in reversed(_RESULT.split(sentence)):
        if _NUMBER.search(part):
            return _worked_out(part)
    return None


def _worked_out(part: str) -> str | None:
    """The number that a part of a sentence states, or to which its last equation comes."""
    equals = last_match(_EQUALS, part)
    if equals is None:
        compound = _COMPOUND.findall(part)
        return compound[0] if len(compound) == 1 else _stated(part)
    after = part[equals.end() :]
    rounded = _ROUNDED.search(after)
    first = _NUMBER.search(after, rounded.end() if rounded else 0)
    if first is None or (rounded is None and after[: first.start()].strip(" \\({[$*_")):
        return None
    return None if _OPERATOR.match(after, first.end()) else _written(first)


def _concluded(sentence: str) -> str | None:
    label = _LABEL.match(sentence)
    plain = sentence[label.end() if label else 0 :]
    return None if _OPENS.match(plain) or _PLAN.search(plain.partition("=")[2] or plain) else number_in(plain)


def _stated(clause: str) -> str | None:
    """The number of a clause: its only one, or else that of its main part, or that which its verb governs."""
    main = clause
    for shorten in (_without_leading, _without_trailing):
        number = _only(main)
        if number is not None:
            return number
        shorter = shorten(main)
        main = shorter if _NUMBER.search(shorter) else main
    number = _only(main)
    if number is not None:
        return number
    governed = [found for found in _NUMBER.finditer(main) if _COPULA.search(main[: found.start()])]
    if len(governed) == 1 and not _OPERATOR.match(main, governed[0].end()):
        return _written(governed[0])
    return None


def _only(clause: str) -> str | None:
    found = list(_NUMBER.finditer(clause))
    if any(_OPERATOR.match(clause, one.end()) for one in found):
        return None
    written = {_written(one) for one in found}
    return written.pop() if len(written) == 1 else None


def _without_leading(clause: str) -> str:
    start = _CONCLUDES.match(clause)
    rest = clause[start.end() :].lstrip(" ,") if start else clause.lstrip()
    leading = _LEADING.match(rest)
    return rest[leading.end() :] if leading else rest


def _without_trailing(clause: str) -> str:
    number = _NUMBER.search(clause)
    if number is None:
        return clause
    trailing = _TRAILING.search(clause, number.end())
    return clause[: trailing.start()] if trailing else clause


def _written(number: re.Match[str]) -> str:
    sign = "-" if number["sign"] else ""
    percent = "%" if number["percent"] else ""
    return f"{sign}{number['value'].rstrip(',')}{percent}"


def _lone(text: str, ended: bool) -> str | None:
    """A last line that is a number and nothing else, where it cannot have been cut off."""
    line = text.strip()
    line = line[line.rfind("\n") + 1 :]
    if len(line) > 80:
        return None
    set_off = re.fullmatch(r"(?:\*\*|__|\$\$?|\\\(|\\\[)\s?(.{1,60}?)\s?(?:\*\*|__|\$\$?|\\\)|\\\])", line)
    if set_off is None and not (ended or line == text.strip()):
        return None
    found = _NUMBER.fullmatch((set_off[1] if set_off else line).strip())
    return None if found is None else _written(found)


def _in_formula(text: str) -> bool:
    """Whether a text stops within a formula."""
    return any(text.rfind(opening) > text.rfind(closing) for opening, closing in ((r"\[", r"\]"), (r"\(", r"\)")))


def _sentences(line: str) -> list[str]:
    sentences = []
    while line:
        end = sentence_end(line) + 1
        sentences.append(line[:end].strip())
        line = line[end:].lstrip()
    return sentences


def _abbreviates(line: str, position: int) -> bool:
    before = _BEFORE.search(line, max(0, position - 8), position)
    if before is None:
        return False
    word = before.group().lower()
    after = line[position + 1 :].lstrip()[:1]
    if _TITLES.fullmatch(word):
        return True
    if len(word) == 1:
        # An initial follows a name or another initial; else a letter is a choice.
        named = re.search(r"(?:[A-Z][a-z]+|[A-Z]\.)\s$", line[: before.start()][-20:]) is not None
        return (
            before.group().isupper()
            and after.isupper()
            and (named or re.match(r"\s[A-Z]\.", line[position + 1 :]) is not None)
        )
    return _UNITS.fullmatch(word) is not None and (after.islower() or after.isdigit())
