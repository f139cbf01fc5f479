"""A parser for as much of PromQL as dashboard and alerts use; it tells which metrics an expression asks for."""

from __future__ import annotations

import re

TOKEN = re.compile(
    r"""\s*(?:
    (?P<duration>\[\d+(?:ms|[smhdwy])\])
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<word>[a-zA-Z_:][\w:]*)
    |(?P<text>"(?:[^"\\]|\\.)*")
    |(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^(){},=<>])
    )""",
    re.VERBOSE,
)
AGGREGATES = {"sum", "max", "min", "avg", "count"}
# Functions, and whether each argument is a range; None for a number.
FUNCTIONS: dict[str, tuple[bool | None, ...]] = {
    "rate": (True,),
    "increase": (True,),
    "histogram_quantile": (None, False),
    "floor": (False,),
    "scalar": (False,),
    "clamp_min": (False, None),
    "time": (),
}
# Loosest first.
OPERATORS = (("or",), ("and", "unless"), ("==", "!=", ">", "<", ">=", "<="), ("+", "-"), ("*", "/", "%"))


class Wrong(ValueError):
    """The text is no expression."""


def parse(text: str) -> set[str]:
    """The names of the metrics in an expression."""
    parser = Parser(text)
    parser.binary(0)
    if parser.peek():
        raise Wrong(f"{text!r}: {parser.peek()!r} is too much")
    return parser.metrics


class Parser:
    def __init__(self, text: str):
        self.text, self.tokens, self.place, self.metrics = text, list[tuple[str, str]](), 0, set[str]()
        end = 0
        while text[end:].strip():
            match = TOKEN.match(text, end)
            if not match or not match.lastgroup:
                raise Wrong(f"{text!r}: not understood from {text[end:]!r}")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            end = match.end()

    def peek(self) -> str:
        return self.tokens[self.place][1] if self.place < len(self.tokens) else ""

    def kind(self) -> str:
        return self.tokens[self.place][0] if self.place < len(self.tokens) else "end"

    def take(self, *expected: str) -> str:
        token = self.peek()
        if not token or expected and token not in expected:
            raise Wrong(f"{self.text!r}: {token or 'the end'!r} where {' or '.join(expected) or 'more'} is expected")
        self.place += 1
        return token

    def word(self) -> str:
        if self.kind() != "word":
            raise Wrong(f"{self.text!r}: {self.peek()!r} is no name")
        return self.take()

    def binary(self, level: int) -> None:
        if level == len(OPERATORS):
            self.unary()
            return
        self.binary(level + 1)
        while self.peek() in OPERATORS[level]:
            self.take()
            if self.peek() in ("on", "ignoring"):
                self.take()
                self.labels()
                if self.peek() in ("group_left", "group_right"):
                    self.take()
                    if self.peek() == "(":
                        self.labels()
            self.binary(level + 1)

    def labels(self) -> None:
        self.take("(")
        while self.peek() != ")":
            self.word()
            if self.peek() != ")":
                self.take(",")
        self.take(")")

    def unary(self) -> None:
        """Anything but a range."""
        if self.kind() == "number":
            self.take()
        elif self.peek() == "(":
            self.take()
            self.binary(0)
            self.take(")")
        elif self.peek() in AGGREGATES:
            self.take()
            if by := self.peek() in ("by", "without"):
                self.take()
                self.labels()
            self.take("(")
            self.binary(0)
            self.take(")")
            if not by and self.peek() in ("by", "without"):
                self.take()
                self.labels()
        elif self.place + 1 < len(self.tokens) and self.tokens[self.place + 1][1] == "(":
            self.call()
        else:
            self.selector()

    def call(self) -> None:
        name = self.word()
        if name not in FUNCTIONS:
            raise Wrong(f"{self.text!r}: the function {name} is not known")
        self.take("(")
        for number, is_range in enumerate(FUNCTIONS[name]):
            if number:
                self.take(",")
            if is_range:
                self.selector()
                if self.kind() != "duration":
                    raise Wrong(f"{self.text!r}: {name} is of a range")
                self.take()
            else:
                self.binary(0)
        self.take(")")

    def selector(self) -> None:
        self.metrics.add(self.word())
        if self.peek() != "{":
            return
        self.take("{")
        while self.peek() != "}":
            self.word()
            operator = self.take("=", "!=", "=~", "!~")
            if self.kind() != "text":
                raise Wrong(f"{self.text!r}: a label is compared with {self.peek()!r}")
            value = self.take()[1:-1]
            if operator in ("=~", "!~"):
                re.compile(value)
            if self.peek() != "}":
                self.take(",")
        self.take("}")
