r"""Expressions: read by precedence to the last sign, or not at all.

As people write them: `2\frac{1}{2}` is two and a half, `2x(x+1)` multiplies, `x^10` has the exponent ten, `\sin 2x` is
the sine of 2x, and two numbers beside each other are no product.
"""

from __future__ import annotations

import re
from fractions import Fraction

from search.answers.notation import FUNCTIONS
from search.answers.tokens import (
    GREEK,
    MAX_DEPTH,
    Token,
    Tokens,
    UnreadError,
    closes_at,
    is_command,
    is_sign,
    numeral,
)
from search.answers.units import UNITS
from search.answers.values import Expression, Node

_PRODUCT = re.compile(r"[b-df-hj-np-tv-z]{2}|[a-z]{1}|[xyzuvw]{2,3}|[abcd]{2,3}|[pqrst]{2,3}|[klmn]{2,3}")
_OPAQUE = frozenset("fgFGPQ")
_CLOSING = {"(": ")", "[": "]", "{": "}", "lfloor": "rfloor", "lceil": "rceil"}
_END = Token("end", "", False)
"""Stands after the last token."""

_NO_FACTORS = frozenset(("rangle", "rfloor", "rceil", "circ", "le", "ge", "ne", "in", "cup", "cap", "pm", "mp"))


def number(value: int | Fraction) -> Node:
    """A number as a node."""
    return Node("num", number=Fraction(value))


def read_expression(tokens: Tokens) -> Expression:
    """The expression that tokens are.

    Raises:
        UnreadError: they are none, or something in them is not understood.
    """
    parser = _Parser(list(tokens))
    node = parser.whole()
    return Expression(node, frozenset(variables(node)))


def variables(node: Node) -> set[str]:
    """The names of an expression's variables."""
    if node.op == "var":
        return {node.name}
    return {name for argument in node.args for name in variables(argument)}


class _Parser:
    """Precedence climbing over the tokens of one expression."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def whole(self) -> Node:
        node = self.sum()
        if self.at < len(self.tokens):
            raise UnreadError(f"{self.tokens[self.at].text!r}")
        return node

    def peek(self) -> Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else _END

    def take(self) -> Token:
        token = self.peek()
        if token is _END:
            raise UnreadError("an expression that is not finished")
        self.at += 1
        return token

    def accept(self, *signs: str) -> bool:
        found = self._is_next(*signs)
        self.at += found
        return found

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadError("deeper than an answer is")

    def sum(self) -> Node:
        self.deeper()
        terms = [self.signed()]
        while self._is_next("+", "-"):
            sign, term = self.take().text, self.signed()
            terms.append(term if sign == "+" else Node("neg", (term,)))
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def signed(self) -> Node:
        sign = self._signs()
        node = self.product()
        return Node("neg", (node,)) if sign < 0 else node

    def _signs(self) -> int:
        sign = 1
        while self._is_next("+", "-"):
            sign = -sign if self.take().text == "-" else sign
        return sign

    def product(self) -> Node:
        factors = [self.power()]
        while True:
            token = self.peek()
            if is_sign(token, "*", "/"):
                self.at += 1
                negative = self.accept("-")
                factor = self.power()
                factor = Node("neg", (factor,)) if negative else factor
                factors.append(factor if token.text == "*" else Node("inv", (factor,)))
            elif self._begins(token):
                if token.kind in ("num", "repetend", "scientific") and not is_sign(self.tokens[self.at - 1], "!"):
                    raise UnreadError("two numbers beside each other")
                factors.append(self.power())
            else:
                break
        return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))

    def _begins(self, token: Token) -> bool:
        """Whether a token begins a factor that stands beside the last one."""
        if token.kind in ("num", "repetend", "scientific", "word"):
            return True
        if token.kind == "command":
            return token.text not in _NO_FACTORS
        return is_sign(token, "(", "[", "{")

    def power(self) -> Node:
        base = self.postfix()
        if self.accept("^"):
            if is_command(self.peek(), "circ"):
                self.at += 1
                return Node("mul", (base, Node("pi"), number(Fraction(1, 180))))
            return Node("pow", (base, self.exponent()))
        return base

    def exponent(self) -> Node:
        self.deeper()
        sign = self._signs()
        node = self.power() if not self._is_next("{") else self._powered_group()
        self.depth -= 1
        return Node("neg", (node,)) if sign < 0 else node

    def _powered_group(self) -> Node:
        node = self.group()
        return Node("pow", (node, self.exponent())) if self.accept("^") else node

    def _is_next(self, *signs: str) -> bool:
        return is_sign(self.peek(), *signs)

    def postfix(self) -> Node:
        node = self.atom()
        while self.accept("!"):
            node = Node("factorial", (node,))
        return node

    def atom(self) -> Node:
        self.deeper()
        node = self._atom()
        self.depth -= 1
        return node

    def _atom(self) -> Node:
        token = self.take()
        if token.kind in ("num", "repetend", "scientific"):
            return self._mixed(token)
        if token.kind == "word":
            return self._name(token)
        if is_sign(token, "(", "[", "{"):
            self.at -= 1
            return self.group()
        if is_sign(token, "|"):
            return self._absolute()
        if token.kind == "command":
            return self._command(token)
        raise UnreadError(f"{token.text!r}")

    def _mixed(self, token: Token) -> Node:
        r"""A number, or a whole number with a fraction beside it: 2\frac{1}{2}, 2 1/2."""
        value = numeral(token)
        if token.kind != "num" or value.denominator != 1 or "." in token.text:
            return Node("num", number=value)
        fraction = self._fraction_beside()
        return Node("num", number=value if fraction is None else value + fraction)

    def _fraction_beside(self) -> Fraction | None:
        following = self.tokens[self.at : self.at + 7]
        texts = [item.text for item in following]
        if following and is_command(following[0], "frac"):
            # \frac{1}{2} and \frac12
            if (
                len(texts) >= 7
                and [texts[n] for n in (1, 3, 4, 6)] == ["{", "}", "{", "}"]
                and _proper(texts[2], texts[5])
            ):
                self.at += 7
                return Fraction(int(texts[2]), int(texts[5]))
            if len(texts) >= 2 and following[1].kind == "num" and len(texts[1]) == 2 and _proper(*texts[1]):
                self.at += 2
                return Fraction(int(texts[1][0]), int(texts[1][1]))
            return None
        if len(texts) >= 3 and following[0].spaced and following[0].kind == "num" and texts[1] == "/":
            after = following[3] if len(following) > 3 else None
            if _proper(texts[0], texts[2]) and not (after is not None and after.text in ("/", "^", "!")):
                self.at += 3
                return Fraction(int(texts[0]), int(texts[2]))
        return None

    def _name(self, token: Token) -> Node:
        """A variable, or a product of variables of one letter each."""
        run = token.text
        if run in ("e", "i"):
            return Node(run)
        subscript = self._subscript() if len(run) == 1 or self._is_next("_") else ""
        following = self.peek()
        if run[-1] in _OPAQUE and is_sign(following, "(") and not following.spaced:
            raise UnreadError("a function that is not known")
        if len(run) == 1:
            return Node("var", name=run + subscript)
        if subscript or _PRODUCT.fullmatch(run) is None or run in UNITS:
            raise UnreadError(f"the word {run!r}")
        return Node("mul", tuple(Node(letter) if letter in "ei" else Node("var", name=letter) for letter in run))

    def _subscript(self) -> str:
        if not self.accept("_"):
            return ""
        if self._is_next("{"):
            end = closes_at(self.tokens, self.at)
            inner = self.tokens[self.at + 1 : end]
            self.at = end + 1
        else:
            inner = [self.take()]
        if not inner or len(inner) > 3 or any(item.kind not in ("num", "word", "text") for item in inner):
            raise UnreadError("a subscript")
        return "_" + ",".join(item.text for item in inner)

    def group(self) -> Node:
        """What stands in brackets, the first of which is to be taken."""
        opening = self.take()
        end = closes_at(self.tokens, self.at - 1)
        if self.tokens[end].text != _CLOSING.get(opening.text):
            raise UnreadError("brackets that do not match")
        return self._up_to(end)

    def _up_to(self, end: int) -> Node:
        """All up to a closing sign, which is taken too."""
        outer, inner = self.tokens, self.tokens[self.at : end]
        self.tokens, self.at = inner, 0
        node = self.whole()
        self.tokens, self.at = outer, end + 1
        return node

    def _absolute(self) -> Node:
        end = next((n for n in range(self.at, len(self.tokens)) if is_sign(self.tokens[n], "|")), None)
        if end is None or end == self.at:
            raise UnreadError("a bar alone")
        return Node("abs", (self._up_to(end),))

    def _command(self, token: Token) -> Node:
        name = token.text
        if name == "frac":
            top, bottom = self._two()
            return Node("mul", (top, Node("inv", (bottom,))))
        if name == "binom":
            return Node("binom", self._two())
        if name == "sqrt":
            return self._root()
        if name in ("pi", "infty"):
            return Node("pi" if name == "pi" else "inf")
        if name in FUNCTIONS:
            return self._function("log10" if name == "lg" else name)
        if name in GREEK:
            return Node("var", name=f"\\{name}{self._subscript()}")
        if name in ("lfloor", "lceil"):
            self.at -= 1
            return Node(name.removeprefix("l"), (self.group(),))
        raise UnreadError(f"\\{name}")

    def _two(self) -> tuple[Node, Node]:
        r"""The arguments of \frac and \binom, in braces or as TeX takes them without: \frac12, \frac1{20}."""
        token = self.peek()
        if token.kind == "num" and len(token.text) == 2 and token.text.isdigit():
            self.at += 1
            return number(int(token.text[0])), number(int(token.text[1]))
        return self._argument(), self._argument()

    def _argument(self) -> Node:
        if self._is_next("{"):
            return self.group()
        token = self.take()
        if token.kind == "num" and len(token.text) == 1:
            return number(int(token.text))
        if token.kind == "word" and len(token.text) == 1:
            return self._name(token)
        if token.kind == "command" and token.text in ("pi", "sqrt"):
            return self._command(token)
        raise UnreadError("an argument without braces")

    def _root(self) -> Node:
        degree: Node | None = None
        if self._is_next("["):
            degree = self.group()
        token = self.peek()
        if is_sign(token, "{", "("):
            radicand = self.group()
        elif token.kind == "num":
            self.at += 1
            radicand = Node("num", number=numeral(token))
        elif token.kind == "word":
            self.at += 1
            if len(token.text) > 1:
                raise UnreadError("a root without braces")
            radicand = self._name(token)
        else:
            radicand = self.atom()
        return Node("root", (radicand,) if degree is None else (radicand, degree))

    def _function(self, name: str) -> Node:
        base: Node | None = None
        exponent: Node | None = None
        if name == "log" and self.accept("_"):
            base = self.group() if self._is_next("{") else self._argument()
        if self.accept("^"):
            sign = self._signs()
            exponent = self.group() if self._is_next("{") else self.atom()
            exponent = Node("neg", (exponent,)) if sign < 0 else exponent
        argument = self.group() if self._is_next("(", "{", "[") else self._bare_argument()
        inverse = exponent is not None and exponent == Node("neg", (number(1),))
        if inverse and name in ("sin", "cos", "tan"):
            name, exponent = f"arc{name}", None
        applied = Node(name, (argument,) if base is None else (argument, base))
        return applied if exponent is None else Node("pow", (applied, exponent))

    def _bare_argument(self) -> Node:
        r"""What a function without brackets applies to: the factors up to a sign, a bracket or another function."""
        factors = [self.power()]
        while True:
            token = self.peek()
            if is_sign(token, "/") and not token.spaced:
                self.at += 1
                factors.append(Node("inv", (self.power(),)))
            elif token.kind == "word" or is_command(token, "pi", "frac", "sqrt") or token.text in GREEK:
                factors.append(self.power())
            else:
                break
        return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))


def _proper(top: str, bottom: str) -> bool:
    return top.isdigit() and bottom.isdigit() and 0 < int(top) < int(bottom) and len(bottom) < 10
