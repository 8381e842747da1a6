"""Tells what a program printed from the words of people and models that a log quotes.

A server logs requests, a chat shows what both sides write, and an issue describes a log in prose. There, ``offloaded
33/33 layers to GPU`` is no evidence, and ``CUDA error`` is no failure. Evidence counts only where a program prints it,
behind nothing but the prefixes of logs. Failures have too many forms for that, so they count unless their line shows
that it is quoted.
"""

from __future__ import annotations

import re

_FIELD = re.compile(r"""(?:\b(?:msg|message|log|line|event)=|(?<!\w)b)["']""", re.IGNORECASE)
"""Where the message of another program begins: in a field, or in bytes as Python prints them."""
_TIME_OR_POD = re.compile(r"\d:\d\d|-\w*\d")
_FORMAL = re.compile(
    r"\d|^\W+$|[:,|\])>]$|[_=\[]|^[A-Z]$"
    r"|^(?i:trace|debug|info|notice|warn(?:ing)?|err(?:or)?|critical|fatal|inf|wrn|dbg|stdout|stderr|kernel|am|pm|utc"
    r"|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun)$"
)
"""Parts of a prefix: numbers, punctuation, the names of loggers and containers, levels, and parts of a date."""
_SPEAKER = re.compile(
    r"(?<![\w/.-])(?:user|human|assistant|ai|bot|you|me|customer|prompt|question|answer|query|instruction|q|a)\s?:(?=\s|$)"
    r"|<\|?(?:im_start|start_header_id|start_of_turn|user|assistant)\b|\[INST\]|^\s*>{1,3}\s|###\s*\w+:",
    re.IGNORECASE,
)
"""The beginning of a part of a conversation."""
_REPORTER = re.compile(r"(?<![\w/.-])(?:system|input|output|response|result)\s?:(?=\s|$)", re.IGNORECASE)
_TEXT = re.compile(
    r"\b(?:content|prompt|text|inputs?|query|question|instruction)[\"']?\s*[:=]\s*\[?\s*([\"'`])", re.IGNORECASE
)
"""A field that contains what a person or a model wrote."""
_NAME = re.compile(
    r"(?:CUDA|ROCm|HIP|MUSA|cuBLAS|hipBLAS|[Ss]egm|[Gg]eneral prot|[Ii]llegal|[Aa]ccess v|[Bb]us e|[Oo]ut of)"
)
"""The beginning of the name of a failure that is also one in prose."""
_IN_PROSE = re.compile(
    r"(?<![\w=:.])(?:(?:an?|the|my|your|our|his|her|any|some|gets?|got|getting|sees?|saw|means?|does|did|do|of|about"
    r"|called|like|what|why|how|which|fix(?:es)?|avoid|handle|debug|prevent|causes?|says?|said)\s+|[A-Za-z']+\s+[\"'`(])$",
    re.IGNORECASE,
)
"""The words before such a name in prose: one after which no program prints it, or any before a quotation mark."""
_SENTENCE = re.compile(
    r"(?:what|why|how|explain|please|i'm|i|my|we|tell|hello|hi|hey|describe|translate|summari[sz]e)\s+[a-z']",
    re.IGNORECASE,
)
_EXPLAINED = re.compile(
    r"(?:[\w'-]+[:,]? ){1,6}?(?:means|refers to|indicates|occurs|happens"
    r"|(?:is|are) (?:an?|usually|often|caused) (?!stub))"
)
"""The name of a failure in a sentence that explains it."""
_ASKED = re.compile(
    r"\b(?:what|why|how|which|when|where|can|could|should|do(?:es)?|is|any(?:one)?)\b.*\?\s*$|\uff1f\s*$",
    re.IGNORECASE,
)
_TOLD = re.compile(
    r"\b(?:ERROR|ERR|CRITICAL|FATAL|level=(?:error|fatal))\b|\b(?:[Ff]ail(?:ed|ure)?|[Cc]rashed|[Tt]erminated)\b"
)
"""Words before a failure with which a program reports it, in prose of its own."""
_WARNING = re.compile(r"(?:\.py|>):\d+: \w*Warning: ")
_MARKUP = re.compile(r"[\"'`\u201c\u201d\u2018\u2019]|^\s*[*$]|<[a-z][^<>]*>\S")
"""Quotation marks, and the marks of lists, shells and pages."""
_OWN = re.compile(r"(?:\w+_\w+|load|init|main|build|srv|slot|llama|ggml)\b *(?:\S{1,40} ?)?[:,](?:\s|$)|\.+\s*$")
"""How llama.cpp's own lines begin: with the name of a function, or the dots of progress."""


def printed(line: str, start: int, end: int | None = None) -> bool:
    """Whether what begins at ``start`` stands where a program prints it, and no prose follows its ``end``."""
    parts, after = [line[:start]], line[end:] if end is not None else ""
    field = _FIELD.search(parts[0])
    if field:
        parts = [line[: field.start()], line[field.end() : start]]
        after = re.split(r"[\\\"']", after)[0]
    return all(map(_is_prefix, parts)) and "</" not in line[start:] and not any(map(_is_word, after.split()))


def own(line: str) -> bool:
    """Whether a line has the form of llama.cpp's, or is empty."""
    found = _OWN.search(line)
    return not line.strip() or (found is not None and _is_prefix(line[: found.start()]))


def quoted(line: str, start: int) -> bool:
    """Whether the failure or the fact that begins at ``start`` stands in the words of a person or a model."""
    before = line[:start]
    if _SPEAKER.search(before) or _in_text(before):
        return True
    if _TOLD.search(before):
        return False
    sentence = re.split(r"[:|\]>]\s+", before)[-1].lstrip()
    asked = _ASKED.search(line) and not line.startswith("SIG", start)  # Gunicorn asks whether memory was the reason
    in_prose = _NAME.match(line, start) and (_IN_PROSE.search(before) or _EXPLAINED.match(line, start))
    return bool(asked or in_prose or _SENTENCE.match(sentence))


def survived(line: str, start: int) -> bool:
    """Whether a failure is only a warning of Python, after which its program goes on."""
    return _WARNING.search(line, 0, start) is not None


def _in_text(before: str) -> bool:
    for field in _TEXT.finditer(before):
        rest = re.sub(r"\\.", "", before[field.end() :])
        if field[1] not in rest:
            return True
    return False


def _is_prefix(text: str) -> bool:
    """Whether a text is only what a log puts before a message, with the name of the function that printed it."""
    if _SPEAKER.search(text) or _REPORTER.search(text) or _MARKUP.search(text):
        return False
    timed = False
    words = 0
    for part in text.split():
        timed = timed or _TIME_OR_POD.search(part) is not None
        if not _FORMAL.search(part):
            words += 1 if timed else 2  # the name of a host comes after the time, that of a container after its pod
    return words < 2  # noqa: PLR2004  # one name


def _is_word(part: str) -> bool:
    return re.fullmatch(r"[^\w\[({]?[^\W\d_]+\W*", part) is not None
