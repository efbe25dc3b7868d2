r"""Announcements: "the answer is ...", "**Answer:** ...", "#### ...", in several languages, and what they announce."""

from __future__ import annotations

import re

from search.answers.notation import without_emphasis
from search.answers.prose import number_in, sentence_end
from search.answers.visible import last_match

MAX_ANSWER_CHARS = 10_000
"""A longer "answer" is no answer; keeps what follows the reading cheap on hostile text."""

_IS = r"(?:is|are|should be|must be|will be|would be|can be|has to be|equals|comes (?:out )?to|turns out to be)"
_ENGLISH = (
    # "The final answer (to the problem) is", "Answer:"
    r"(?<!first )(?<!second )(?<!third )(?<!fourth )\b(?:answers?|ans)\b(?:[ \t](?:to|for|of|in)\b[^.:=\n]{1,60}?)?"
    rf"(?:[ \t]{{0,3}}\([^()\n]{{1,30}}\))?[ \t]{{0,8}}"
    rf"(?:(?:then|therefore|thus|hence|here)[ \t])?(?:\b{_IS}\b|[*_]{{0,3}}[ \t]{{0,4}}[:=：])",
    r"\b(?:correct|right|best)[ \t](?:option|choice|letter)[ \t]{1,4}(?:is|:)",
    r"\bfinal[ \t](?:result|value|solution)[*_]{0,3}[ \t]{0,4}(?:is\b|[:=])",
    r"^[#*_> \t]{0,12}(?:result|solution)[*_]{0,3}[ \t]{0,4}:",
)
_OTHERS = (
    # Chinese, Japanese, Korean
    r"(?:最终|最終|正确|正確)?(?:答案|结果|結果)(?:应该|應該|应|應)?(?:是|为|為|选|選|等于|等於|[:：])",
    r"(?:故|因此|所以)?(?:应|應)?(?:选|選)(?:择|擇)?(?=[ \t]?[:：(（]?[ \t]?[A-Z](?![A-Za-z]))",
    r"(?:^|[。\n])[ \t]?答[:：]",
    r"(?:最終的な|最終)?(?:答え|解答|正解|回答)(?:は|[:：])",
    r"(?:최종[ ]?)?(?:정답|답|답변)(?:은|는|[ ]?[:：])",
    # Romance languages
    r"\br[ée]ponse[ \t](?:finale[ \t]|correcte[ \t]|exacte[ \t])?est\b|\br[ée]ponse(?:[ \t]finale)?[*_ \t]{0,4}[:：]",
    r"\brespuesta[ \t](?:final[ \t]|correcta[ \t])?es\b|\brespuesta(?:[ \t]final)?[*_ \t]{0,4}[:：]",
    r"\bresposta[ \t](?:final[ \t]|correta[ \t])?é(?!\w)|\bresposta(?:[ \t]final)?[*_ \t]{0,4}[:：]",
    r"\brisposta[ \t](?:finale[ \t]|corretta[ \t])?è(?!\w)|\brisposta(?:[ \t]finale)?[*_ \t]{0,4}[:：]",
    r"\brăspunsul(?:[ \t]final)?[ \t](?:este|e)\b|\brăspuns[*_ \t]{0,4}[:：]",
    # Germanic languages
    r"\b(?:antwort|lösung)[ \t](?:ist|lautet|beträgt)\b|\b(?:antwort|ergebnis)[*_ \t]{0,4}[:：]"
    r"|\bergebnis[ \t](?:ist|lautet)\b",
    r"\bantwoord[ \t]is\b|\bantwoord[*_ \t]{0,4}[:：]|\b(?:svaret|svar)[ \t](?:är|er)\b|\bsvar[*_ \t]{0,4}[:：]",
    # Slavic languages, Hungarian, Finnish, Turkish, Greek
    r"\bответ[ \t]{0,4}(?:[:：—–]|-[ \t]|равен\b|это\b|является\b|составляет\b)|\bответом[ \t]является\b",
    r"\bвідповідь[ \t]{0,4}(?:[:：—–]|-[ \t]|це\b|є\b|дорівнює\b)",
    r"\bodpowiedź(?:[ \t]to\b|[ \t]wynosi\b|[*_ \t]{0,4}[:：])|\bodpowiedzią[ \t]jest\b",
    r"\bodpověď[ \t](?:je|zní)\b|\bodpověď[*_ \t]{0,4}[:：]",
    r"\b(?:a[ \t])?válasz[ \t]{0,4}[:：]|\bvastaus(?:[ \t]on\b|[ \t]{0,4}[:：])|\bcevap(?:ımız)?[ \t]{0,4}[:：]",
    r"απάντηση(?:[ \t]είναι|[ \t]{0,4}[:：])",
    # Vietnamese, Indonesian, Swahili
    r"\b(?:đáp[ \t](?:án|số)|câu[ \t]trả[ \t]lời)(?:[ \t](?:cuối cùng|đúng)){0,1}(?:[ \t]là\b|[ \t]{0,4}[:：])",
    r"\bjawaban(?:nya)?[ \t]adalah\b|\bjawaban(?:nya)?[*_ \t]{0,4}[:：]"
    r"|\bjibu[ \t](?:la mwisho[ \t])?ni\b|\bjibu[ \t]{0,4}[:：]",
    # Arabic, Hebrew, Persian
    r"(?:الإجابة|الاجابة|الجواب)(?:[ \t]النهائية|[ \t]النهائي)?(?:[ \t](?:هي|هو)|[ \t]{0,4}[:：])"
    r"|התשובה[ \t]{0,4}(?:היא|[:：])|پاسخ[ \t]{0,4}[:：]",
    # Hindi, Bengali, Telugu, Thai
    r"उत्तर[ \t]{0,4}(?:है|[:：])|উত্তর[ \t]{0,4}(?:হল|হলো|হচ্ছে|[:：])"
    r"|సమాధానం[ \t]{0,4}[:：]?|คำตอบ(?:สุดท้าย)?[ \t]{0,4}(?:คือ|[:：])",
)
_HEADING = r"^[#*_> \t]{0,12}(?:the[ \t])?(?:final[ \t])?answer[*_ \t]{0,6}$"
_HASHES = r"####"
_ANNOUNCEMENT = re.compile(
    "|".join([*_ENGLISH, *_OTHERS, f"(?P<heading>{_HEADING})", f"(?P<hashes>{_HASHES})"]), re.IGNORECASE | re.MULTILINE
)
_NO_ANSWER = re.compile(
    r"(?:not|correct|incorrect|right|wrong|as follows|below|above|given by|found by|obtained|unknown|unclear|"
    r"what|which|expected|required|asked|supposed|in the form|then|calculated|accurate|consistent|reasonable|valid)\b",
    re.IGNORECASE,
)
_ADVERB = re.compile(
    r"(?:(?:therefore|thus|hence|then|simply|just|only|exactly|precisely|equal to|now|also|still|approximately|about|"
    r"around|roughly|nearly|almost|indeed|clearly|obviously|actually|given as)[ \t,:]{1,3}){1,4}(?=.)",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"(?:the|that|a|an|she|he|it|they|there|you|we|I|this|in|for|after|to|option)\b(?![ \t]{0,3}[,.)])", re.IGNORECASE
)
_ASIDE = re.compile(
    r"(?:,\s{1,3}(?:as|which|since|so|because|where|when|and so|i\.e\.|meaning|not|rather than|instead of)"
    r"|\s{1,3}(?:because|since|which means))\b"
)
_WORKED = re.compile(
    r"(?:(?:[A-Za-z]{3,20}\b|[0-9.,$%()]|[-+*/×÷·−]|\\(?:times|div|cdot|\$|%|\(|\)))\s{0,2}){1,60}=\s{0,2}(?P<result>\\?\$?-?[0-9][^=]{0,60})"
)
"""A sum that is worked out on the spot: "3 * 4 = 12 apples"."""
_COPULAS = ("です", "である", "となります", "になります", "だ", "입니다", "이다", "이에요", "예요", "है", "ครับ", "ค่ะ")
_WRAPPERS = (
    ("$$", "$$"),
    ("$", "$"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("__", "__"),
    ("_", "_"),
    ('"', '"'),
    ("“", "”"),
    ("「", "」"),
)
_FEW_WORDS = 5
"""A longer clause without a number in it describes the answer."""

_TAGGED = re.compile(r"<answer>(.{0,10000}?)</answer>", re.IGNORECASE | re.DOTALL)
_DECORATION = re.compile("[\u2600-\u27bf\ufe0f\U0001f300-\U0001faff]+$")
"""Ticks and faces; mathematical signs lie elsewhere."""

_SAID = re.compile(r"[^\W_]|[∞∅]")
_DISPLAYS = ((r"\[", r"\]"), ("$$", "$$"))
_LOOSE = " \t\r\n*_:：>"


def announced_answer(text: str) -> tuple[str | None, bool]:
    """What the last announcement of a text announces, and whether there was one that was cut off before its answer."""
    tagged = last_match(_TAGGED, text)
    if tagged is not None and tagged[1].strip():
        return announced_answer(tagged[1])[0] or _clean(tagged[1]), False
    for match in reversed(list(_ANNOUNCEMENT.finditer(text))):
        found = _after_hashes(text, match.end()) if match["hashes"] else _after_phrase(text, match)
        if found:
            return found, False
        if not match["hashes"] and _SAID.search(text, match.end()) is None:
            return None, True
    return None, False


def bare(answer: str) -> str:
    """An answer without what only sets it off: emphasis, the delimiters of a formula, a full stop."""
    text = answer.strip().strip("\u200b")
    while True:
        before = text
        text = _DECORATION.sub("", text).rstrip(".,;:。，；：、।").strip("*`").removesuffix("__").strip()
        for opening, closing in _WRAPPERS:
            inside = text[len(opening) : len(text) - len(closing)]
            if (
                len(text) > len(opening) + len(closing)
                and text.startswith(opening)
                and text.endswith(closing)
                and closing not in inside
                and not inside.endswith("\\")
            ):
                text = inside.strip()
                break
        if text == before:
            return text


def _after_phrase(text: str, match: re.Match[str]) -> str | None:
    """The announced answer; None where nothing follows, "" where what follows is none."""
    rest = text[match.end() : match.end() + MAX_ANSWER_CHARS + 1]
    line, _, _ = rest.partition("\n")
    span = line.strip(_LOOSE.replace("*", "").replace("_", ""))
    if not span.strip(_LOOSE):
        span = rest.lstrip(_LOOSE)
        if not span:
            return None
        span = re.sub(r"^(?:#{1,6} |(?:\d{1,2}\.|[-•])\s)", "", span.partition("\n")[0])
        display = rest.lstrip(_LOOSE)
    else:
        display = rest.lstrip(_LOOSE) if any(span.startswith(opening) for opening, _ in _DISPLAYS) else ""
    for opening, closing in _DISPLAYS:
        if display.startswith(opening):
            content, found, _ = display[len(opening) :].partition(closing)
            return _clean(content) if found else None
    if len(span) >= MAX_ANSWER_CHARS:
        return ""
    return _value(span)


def _value(span: str) -> str | None:
    """The answer in what follows an announcement on its line."""
    if re.match(r"[.?!;]", span.lstrip()):
        return ""
    span = span.strip()
    adverb = _ADVERB.match(span.lstrip("*_ "))
    if adverb is not None:
        span = span.lstrip("*_ ")[adverb.end() :]
    span = span[: sentence_end(span)]
    if _NO_ANSWER.match(span.lstrip("*_ ")):
        return ""
    if _CLAUSE.match(span):
        number = number_in(span)
        if number is not None:
            return _clean(number)
        if len(span.split()) > _FEW_WORDS:
            return ""
    worked = _WORKED.fullmatch(span)
    if worked is not None:
        return _clean(worked["result"])
    aside = _ASIDE.search(span)
    return _clean(span[: aside.start()] if aside and aside.start() > 0 else span)


def _after_hashes(text: str, start: int) -> str:
    """GSM8K's "#### 42"; "" for a heading of that level."""
    rest = text[start : start + MAX_ANSWER_CHARS + 1].lstrip(" \t")
    line = rest.partition("\n")[0]
    if len(line) >= MAX_ANSWER_CHARS or line.startswith("#"):
        return ""
    if re.match(
        r"(?:step|part|case|solution|conclusion|calculat|final|answer|determin|find|comput)", line, re.IGNORECASE
    ):
        return ""
    if rest[len(line) :].strip() and re.match(r"(?:\*\*)?(?:[^\W\d_]|\d{1,2}[.)] )", line):
        return ""
    return _clean(line) or ""


def _clean(answer: str) -> str | None:
    text = bare(without_emphasis(answer.strip()))
    for copula in _COPULAS:
        text = text.removesuffix(copula)
    text = bare(text)
    # A box that was cut off is no answer.
    return None if _SAID.search(text) is None or "\\boxed" in text or "\\fbox" in text else text
