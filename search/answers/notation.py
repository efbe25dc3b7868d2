r"""One notation for LaTeX, Unicode and plain writing: the same signs for the same things, and nothing left out.

What only lays a formula out goes (`\left`, `\displaystyle`, fonts, thin spaces); what means something stays.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARS = 2000
"""A longer answer is compared as text alone."""

MONEY = "¤"
"""A currency sign that is no delimiter of a formula: the dollar's."""

ROW_END = "⏎"
"""The end of a matrix's row."""

_SIGNS = {
    **dict.fromkeys("−–—‒﹣‐‑⁻", "-"),
    **dict.fromkeys("×✕⨯∗⋅∙·", "*"),
    **dict.fromkeys("÷∕⁄", "/"),
    **dict.fromkeys("≤≦⩽", r"\le "),
    **dict.fromkeys("≥≧⩾", r"\ge "),
    **dict.fromkeys("≈≃≅≒", r"\approx "),
    **dict.fromkeys("∣｜", "|"),
    **dict.fromkeys("，、،", ", "),
    **dict.fromkeys("“”„", '"'),
    **dict.fromkeys("‘’′", "'"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t\r\n", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    "√": r"\sqrt ",
    "∛": r"\sqrt[3] ",
    "∜": r"\sqrt[4] ",
    "∞": r"\infty ",
    "≠": r"\ne ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∅": r"\emptyset ",
    "∈": r"\in ",
    "∖": r"\setminus ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "℃": r"^\circ C",
    "ℝ": r"\mathbb{R}",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "〈": r"\langle ",
    "〉": r"\rangle ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "…": r"\ldots ",
    "。": ".",
    "∶": ":",
    "﹪": "%",
}
GREEK_LETTERS = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "omicron", "pi", "rho", "sigmaf", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
)  # fmt: skip
GREEK_CAPITALS = ("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega")
"""Those that TeX has commands for."""

_SIGNS |= {chr(0x3B1 + number): f"\\{name} " for number, name in enumerate(GREEK_LETTERS)}
_SIGNS |= {chr(0x391 + GREEK_LETTERS.index(name.lower())): f"\\{name} " for name in GREEK_CAPITALS}
_TRANSLATED = str.maketrans(_SIGNS)

_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁽⁾ⁿⁱ", "0123456789+()ni", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎", "0123456789+-()", strict=True))
_RAISED_RUN = re.compile(rf"[-⁻{''.join(_RAISED)}]*[{''.join(_RAISED)}]")
_LOWERED_RUN = re.compile(f"[{''.join(_LOWERED)}]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_COMPATIBLE = re.compile("[\uff01-\uff5e\U0001d400-\U0001d7ff]")

_SIZE = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s{0,3}\.?(?=[^.]|$)|\\(?:displaystyle|textstyle|scriptstyle|limits|"
    r"nolimits|strut|bf|rm|it|cal|boldmath|null|large|Large|normalsize|allowbreak|nonumber)(?![A-Za-z])"
)
_SPACE = re.compile(
    r"\\(?:[,;: >]|(?:quad|qquad|enspace|thinspace|hfill|medspace|thickspace)(?![A-Za-z]))|~|\\[hv]space\*?\{[^{}]*\}"
)
_ALIASES = (
    (re.compile(r"\\(?:[dtcsx]|nice)frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\\(?:cdot|times|ast|cdotp)(?![A-Za-z])"), "*"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\(?:leq|leqslant|leqq)(?![A-Za-z])|<=|=<"), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant|geqq)(?![A-Za-z])|>="), r"\\ge "),
    (re.compile(r"\\(?:neq)(?![A-Za-z])|!="), r"\\ne "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\(?:varnothing|empty|O)(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\(?:lbrack)(?![A-Za-z])"), "["),
    (re.compile(r"\\(?:rbrack)(?![A-Za-z])"), "]"),
    (re.compile(r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])"), "|"),
    (re.compile(r"\^\s?\{\s?\\circ\s?\}|\\degree(?![A-Za-z])|\\textdegree(?![A-Za-z])"), r"^\\circ "),
    (re.compile(r"\\(?:infin|Infty)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"\\(?:simeq|thickapprox|approxeq|doteq)(?![A-Za-z])"), r"\\approx "),
    (re.compile(r"\\(?:backslash|smallsetminus)(?![A-Za-z])"), r"\\setminus "),
    (re.compile(r"\\math(?:bb|bf|rm)\s?\{\s?R\s?\}|\\(?:R|reals|Reals)(?![A-Za-z])"), r"\\mathbb{R}"),
    (re.compile(r"\\(?:arg)?text(?:dollar)(?![A-Za-z])"), MONEY),
    (re.compile(r"\\(?:dots|cdots|dotsc|dotsb)(?![A-Za-z])|\.\.\.+"), r"\\ldots "),
    (re.compile(r"\\(?:var)(epsilon|phi|theta|rho)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"\\exponentialE(?![A-Za-z])"), "e"),
    (re.compile(r"\\imaginaryI(?![A-Za-z])"), "i"),
    (re.compile(r"\\(?:(?:text)?color|colorbox|fcolorbox\s?\{[^{}]*\})\s?\{[^{}]*\}"), ""),
    (re.compile(r"\{,\}|,\\!"), ","),
    (re.compile(r"\\!"), ""),
)
_BOX = re.compile(
    r"\\(?:boxed|fbox|framebox|ensuremath|mbox|hbox|text[a-z]{0,6}|math(?:rm|bf|it|sf|normal|tt)|boldsymbol|boldmath|bm|pmb|"
    r"bold|emph|operatorname\*?|underline)\s{0,3}\{([^{}]{0,2000})\}"
)
_FONT_LETTER = re.compile(r"\\(?:text|math)(?:rm|bf|it|sf|tt)?\s([A-Za-z0-9])(?![A-Za-z])")
_TEXT_FAMILY = re.compile(r"\\(?:text[a-z]{0,6}|mbox|hbox|emph|operatorname)")
_AROUND = re.compile(r"\\(?:boxed|fbox|framebox|ensuremath|underline)")
_OVER = re.compile(r"\{([^{}]{1,200})\\(over|choose)(?![A-Za-z])([^{}]{1,200})\}")
_DELIMITERS = re.compile(r"\\\\(?:\s?\[[0-9.\s]{0,8}[a-z]{0,3}\])?|\\[()\[\]]")
_EMPHASIS = re.compile(
    r"(?<![\w*)\]}])(?P<stars>\*{1,3})(?=[^\s*])(?P<starred>[^*\n]{0,399}[^\s*])(?P=stars)(?![\w*(\[{\\])"
    r"|(?<!\w)__(?P<scored>[^_\n]{1,400})__(?!\w)|`(?P<quoted>[^`\n]{1,400})`"
    r"|<(?P<tag>b|i|u|em|strong|mark|code|span|font|p|div|center|big)\b[^<>\n]{0,80}>(?P<tagged>[^<>\n]{1,400})</(?P=tag)>",
    re.IGNORECASE,
)
FUNCTIONS = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "log", "lg",
    "exp",
))  # fmt: skip
_LETTERS = re.compile(r"[^\W\d_]")


def without_emphasis(text: str) -> str:
    """A text without the marks of Markdown and HTML that set off some of its words."""
    return _EMPHASIS.sub(lambda found: found["starred"] or found["scored"] or found["quoted"] or found["tagged"], text)


def one_notation(answer: str) -> str:
    """An answer in one notation; longer ones than `MAX_CHARS` with their spaces collapsed alone."""
    text = answer.strip()
    if len(text) > MAX_CHARS:
        return " ".join(text.split())
    text = without_emphasis(text).rstrip("\\")
    text = _from_unicode(text)
    text = text.replace(r"\$", MONEY).replace("\\%", "%").replace(r"\#", "#").replace(r"\&", " and ")
    text = _without_dollars(text)
    text = _SIZE.sub("", text)
    text = _DELIMITERS.sub(lambda found: ROW_END if found.group().startswith("\\\\") else " ", text)
    for pattern, replacement in _ALIASES:
        text = pattern.sub(replacement, text)
    text = _SPACE.sub(" ", text)
    text = _FONT_LETTER.sub(r" \1", text)
    for _ in range(8):
        before = text
        text = _OVER.sub(_two_floors, _BOX.sub(_unwrapped, text))
        if text == before:
            break
    return " ".join(text.split()).strip().rstrip(".,;:").strip()


def _from_unicode(text: str) -> str:
    if text.isascii():
        return text.replace("\n", " ").replace("\t", " ")
    text = _COMPATIBLE.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text)
    text = _RAISED_RUN.sub(_raised, text)
    text = _LOWERED_RUN.sub(lambda found: "_{" + "".join(_LOWERED[sign] for sign in found.group()) + "}", text)
    text = _VULGAR.sub(_vulgar, text)
    return text.translate(_TRANSLATED)


def _raised(match: re.Match[str]) -> str:
    run = match.group()
    lead = len(run) - len(run.lstrip("-"))
    signs = "".join("-" if sign == "⁻" else _RAISED[sign] for sign in run[lead:])
    return f"{run[:lead]}^{{{signs}}}"


def _vulgar(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match.group()).partition("\u2044")
    return f"\\frac{{{top}}}{{{bottom}}}" if bottom else match.group()


def _without_dollars(text: str) -> str:
    """Dollar signs are delimiters in pairs, and money where they stand before numbers alone."""
    if "$" not in text:
        return text
    money = [found.start() for found in re.finditer(r"(?<![\w$])\$(?=\s?[-+]?[0-9.])", text)]
    count = text.count("$")
    if money and len(money) == count and (count % 2 or re.search(r"\$[^$]*[0-9]\s?\$", text) is None):
        return text.replace("$", MONEY)
    if count == 1 and re.search(r"[0-9]\s?\$$|-\$[0-9]", text):
        return text.replace("$", MONEY)
    return text.replace("$", " ")


def _two_floors(match: re.Match[str]) -> str:
    return f"\\{'frac' if match[2] == 'over' else 'binom'}{{{match[1]}}}{{{match[3]}}}"


def _unwrapped(match: re.Match[str]) -> str:
    content = match[1]
    if _AROUND.match(match.group()):
        return f"{{{content}}}"
    if content.strip() in FUNCTIONS:
        return f"\\{content.strip()} "
    letters = _LETTERS.findall(content)
    is_text = _TEXT_FAMILY.match(match.group()) is not None
    if not letters:
        return f" {content} " if is_text else f"{{{content}}}"
    if len(letters) == 1 and len(content.strip()) <= 3:
        return f" {content.strip()} " if is_text else f"{{{content.strip()}}}"
    if "\\" in content or (not is_text and re.fullmatch(r"[A-Za-z\s~]+", content) is None):
        return f"{{{content}}}"
    return f"«{content}»"
