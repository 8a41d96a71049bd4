"""gzip whose bytes depend on nothing but the input.

zlib promises that its output can be read back, not that it is the same: zlib-ng, which some Python
builds use, compresses differently. Different bytes here are different user data, and a preview on
another machine would want to replace the host. So this is a small compressor of its own: one block
of DEFLATE (RFC 1951) with Huffman codes of its own, in a gzip frame (RFC 1952) without time or
name. It is meant for some tens of kilobytes of text, and comes within a few percent of zlib.
"""

import heapq
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator

_WINDOW = 32_768
_SHORTEST, _LONGEST = 3, 258
_TRIES = 64  # earlier occurrences that are looked at for one match
_END = 256

# RFC 1951, 3.2.5: (extra bits, first value) of each length code from 257 and each distance code.
_LENGTHS = [(0, n) for n in range(3, 11)]
_LENGTHS += [(bits, (1 << bits + 2) + 3 + (step << bits)) for bits in range(1, 6) for step in range(4)]
_LENGTHS += [(0, 258)]
_DISTANCES = [(0, n) for n in range(1, 5)]
_DISTANCES += [(bits, (1 << bits + 1) + 1 + (step << bits)) for bits in range(1, 14) for step in range(2)]
# RFC 1951, 3.2.7: the order in which the lengths of the code-length code are written.
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)

_Match = tuple[int, int]  # length, distance


def compress(data: bytes) -> bytes:
    """``data`` as a gzip file."""
    # Method 8, no flags, no time, no hint, operating system 255 = unknown.
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    return header + _deflate(data) + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def _deflate(data: bytes) -> bytes:
    # Each item: which of the two codes, the symbol, and extra bits with their number.
    items = [item for token in _tokens(data) for item in _symbols(token)] + [(0, _END, 0, 0)]
    lengths = [
        _code_lengths(Counter(symbol for code, symbol, _, _ in items if code == which), size, 15)
        for which, size in ((0, 286), (1, 30))
    ]
    flat = [*lengths[0], *lengths[1]]
    meta = _code_lengths(Counter(flat), 19, 7)
    out = _Bits()
    out.number(0b101, 3)  # the last block, with codes of its own
    out.number(len(lengths[0]) - 257, 5)
    out.number(len(lengths[1]) - 1, 5)
    out.number(len(_ORDER) - 4, 4)
    for symbol in _ORDER:
        out.number(meta[symbol], 3)
    codes = [_codes(each) for each in (*lengths, meta)]
    for length in flat:
        out.number(*codes[2][length])
    for code, symbol, extra, bits in items:
        out.number(*codes[code][symbol])
        out.number(extra, bits)
    return out.bytes()


class _Bits:
    """Bits, the lowest of each byte first."""

    def __init__(self) -> None:
        self.done = bytearray()
        self.value = self.count = 0

    def number(self, value: int, bits: int) -> None:
        self.value |= value << self.count
        self.count += bits
        while self.count >= 8:
            self.done.append(self.value & 0xFF)
            self.value >>= 8
            self.count -= 8

    def bytes(self) -> bytes:
        return bytes(self.done) + (bytes([self.value]) if self.count else b"")


def _tokens(data: bytes) -> Iterator[int | _Match]:
    """Literal bytes, and repetitions of what was there before."""
    seen: dict[bytes, list[int]] = {}
    at = 0
    while at < len(data):
        match = _longest_match(data, at, seen.get(data[at : at + _SHORTEST], []))
        yield match or data[at]
        step = match[0] if match else 1
        for position in range(at, at + step):
            seen.setdefault(data[position : position + _SHORTEST], []).append(position)
        at += step


def _longest_match(data: bytes, at: int, earlier: list[int]) -> _Match | None:
    best: _Match = (0, 0)
    limit = min(_LONGEST, len(data) - at)
    for start in earlier[: -_TRIES - 1 : -1]:
        if at - start > _WINDOW:
            break
        length = 0
        while length < limit and data[start + length] == data[at + length]:
            length += 1
        if length > best[0]:
            best = (length, at - start)
    return best if best[0] >= _SHORTEST else None


def _symbols(token: int | _Match) -> Iterator[tuple[int, int, int, int]]:
    if isinstance(token, int):
        yield 0, token, 0, 0
        return
    for code, base, table, value in ((0, 257, _LENGTHS, token[0]), (1, 0, _DISTANCES, token[1])):
        index = max(i for i, (_, first) in enumerate(table) if first <= value)
        bits, first = table[index]
        yield code, base + index, value - first, bits


def _code_lengths(counts: Counter[int], size: int, longest: int) -> list[int]:
    """The length of each symbol's Huffman code, 0 for one that does not occur."""
    # A code needs two symbols to be complete; every inflater takes a complete one.
    weights = {s: counts[s] for s in range(size) if counts[s]}
    for spare in range(size):
        if len(weights) >= 2:
            break
        weights.setdefault(spare, 1)
    while True:
        lengths = [0] * size
        heap: list[tuple[int, int, list[int]]] = [(weight, s, [s]) for s, weight in weights.items()]
        heapq.heapify(heap)
        while len(heap) > 1:
            one, other = heapq.heappop(heap), heapq.heappop(heap)
            merged = one[2] + other[2]
            for symbol in merged:
                lengths[symbol] += 1
            heapq.heappush(heap, (one[0] + other[0], min(merged), merged))
        if max(lengths) <= longest:
            return lengths
        weights = {s: (weight + 1) // 2 for s, weight in weights.items()}  # flatter, so less deep


def _codes(lengths: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Symbol -> (code with its first bit lowest, length): RFC 1951, 3.2.2."""
    codes: dict[int, tuple[int, int]] = {}
    code = previous = 0
    for length, symbol in sorted((n, s) for s, n in enumerate(lengths) if n):
        code <<= length - previous
        codes[symbol] = (int(f"{code:0{length}b}"[::-1], 2), length)
        code, previous = code + 1, length
    return codes
