"""Seeded damage: of bytes, and of words on a command line."""

import struct

import numpy as np

HUGE = (2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three mutations of a file's bytes."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        _BYTES[rng.integers(len(_BYTES))](data, rng)
    return bytes(data)


def _flip(data, rng):
    for _ in range(int(rng.integers(1, 9))):
        if data:
            data[_place(data, rng)] ^= 1 << int(rng.integers(8))


def _flip_near_the_start(data, rng):
    """Headers decide more than content."""
    if data:
        data[int(rng.integers(min(len(data), 512)))] ^= 1 << int(rng.integers(8))


def _cut(data, rng):
    del data[_place(data, rng) :]


def _cut_out(data, rng):
    start = _place(data, rng)
    del data[start : start + int(rng.integers(1, 65))]


def _swap(data, rng):
    size = int(rng.integers(1, 65))
    a, b = sorted((_place(data, rng), _place(data, rng)))
    if a + size <= b:
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def _number(data, rng):
    """A number where one may be: of either byte order, at a multiple of its size or not."""
    value = HUGE[rng.integers(len(HUGE))]
    form = "<>"[rng.integers(2)] + "HIQ"[rng.integers(3)]
    size = struct.calcsize(form)
    start = _place(data, rng)
    if rng.integers(2):
        start -= start % size
    data[start : start + size] = struct.pack(form, value % 2 ** (8 * size))


def _fill(data, rng):
    start = _place(data, rng)
    size = int(rng.integers(1, 65))
    data[start : start + size] = bytes([int(rng.choice([0, 255, 0x7F]))]) * len(data[start : start + size])


def _insert(data, rng):
    start = _place(data, rng)
    data[start:start] = rng.bytes(int(rng.integers(1, 33)))


def _repeat(data, rng):
    start = _place(data, rng)
    data[start:start] = data[start : start + int(rng.integers(1, 257))]


def _digits(data, rng):
    """Text: a digit becomes many, or another sign."""
    places = [i for i, byte in enumerate(data[:65536]) if 48 <= byte <= 57]
    if places:
        start = places[rng.integers(len(places))]
        data[start : start + 1] = _DIGITS[rng.integers(len(_DIGITS))]


_DIGITS = (b"-1", b"99999999999999999999", b"1e309", b"NaN", b"null", b'"x"', b"[]", b"{}", b"0.5", b"")
_BYTES = (
    _flip, _flip_near_the_start, _cut, _cut_out, _swap, _number, _number, _fill, _insert, _repeat, _digits,
)  # fmt: skip


def _place(data, rng) -> int:
    return int(rng.integers(len(data))) if data else 0


VALUES = (  # no folder above the one that a case works in: commands write
    "", " ", "-1", "0", "1", "nan", "inf", "-inf", "1e309", "9" * 20, "0.5", "none", "null", "true",
    "a=b", "a#b", "a(b", "a)b", "a&b", "a,b", "[1", "1]", "{a: 1}", "[1,2]", "[]", "ü", "日本", "$x", "${x}",
    "${oc.env:NOT_SET}", "???", "'", '"', "\\", "%s", "\u2028", "~", ".", "-", "--", "-o", "@",
    "x" * 5000, "nowhere/at/all", "*", "a\nb", "\t", "0x10", "1_000", "+", ":", ";",
)  # fmt: skip


_SIGNS = "=#(&,[]{}'\"\\$ü~+-.:"


def spoilt(words: list[str], rng: np.random.Generator) -> list[str]:
    """One or two of the words of a command with another value, gone, doubled, or with a stranger beside."""
    words = list(words)
    for _ in range(int(rng.integers(1, 3))):
        place = int(rng.integers(len(words)))
        value = VALUES[rng.integers(len(VALUES))]
        kind = rng.integers(6)
        if kind < 3:
            key, equals, _old = words[place].partition("=")
            words[place] = f"{key}={value}" if equals else value
        elif kind == 3:
            words[place : place + 1] = [words[place], words[place]] if rng.integers(2) else []
        elif kind == 4:
            words.insert(place, value)
        else:
            letters = list(words[place])
            letters.insert(
                int(rng.integers(len(letters) + 1)), str(rng.choice(list("=#(&,[]{}'\"\\$ü~+-.:")))
            )
            words[place] = "".join(letters)
        if not words:
            return [value]
    return words
