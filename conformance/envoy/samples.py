"""Texts that matchers of Envoy's configuration accept."""

import re._constants as constants
import re._parser as parser

CHARACTERS = "abcxyz019/-_.:% \t"
CATEGORIES = {
    constants.CATEGORY_DIGIT: str.isdigit, constants.CATEGORY_SPACE: str.isspace,
    constants.CATEGORY_WORD: lambda text: text.isalnum() or text == "_",
    constants.CATEGORY_NOT_DIGIT: lambda text: not text.isdigit(), constants.CATEGORY_NOT_SPACE: lambda text: not text.isspace(),
    constants.CATEGORY_NOT_WORD: lambda text: not (text.isalnum() or text == "_"),
}


def accepted(choices, character):
    """Whether a character is in a class of a regular expression."""
    hit = False
    for kind, argument in choices:
        hit |= (kind is constants.LITERAL and argument == ord(character)
                or kind is constants.RANGE and argument[0] <= ord(character) <= argument[1]
                or kind is constants.CATEGORY and CATEGORIES[argument](character))
    return hit != (choices[0][0] is constants.NEGATE)


def expand(parsed):
    made = ""
    for kind, argument in parsed:
        if kind is constants.LITERAL:
            made += chr(argument)
        elif kind in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            least, most, inner = argument
            made += expand(inner) * max(least, min(1, most))
        elif kind is constants.SUBPATTERN:
            made += expand(argument[-1])
        elif kind is constants.BRANCH:
            made += expand(argument[1][0])
        elif kind is constants.NOT_LITERAL:
            made += next(each for each in CHARACTERS if each != chr(argument))
        elif kind is constants.IN:
            printable = CHARACTERS + "".join(map(chr, range(33, 127)))
            made += next(each for each in printable if accepted(argument, each))
        elif kind is constants.ANY:
            made += "a"
    return made


def regex(text):
    """A text that a regular expression matches as a whole."""
    return expand(parser.parse(text))


def string(matcher):
    """A text that a StringMatcher accepts."""
    for kind in ("exact", "prefix", "suffix", "contains"):
        if kind in matcher:
            return matcher[kind] + ("ns/default/sa/any" if kind == "prefix" and matcher[kind].endswith("/") else "")
    return regex(matcher["safeRegex"]["regex"]) if "safeRegex" in matcher else "any"


def header(matcher):
    """A value that a HeaderMatcher accepts; None for a header that must not be there."""
    if matcher.get("invertMatch"):
        return None
    if "rangeMatch" in matcher:
        return str(matcher["rangeMatch"].get("start", 0))
    if matcher.get("presentMatch") is False:
        return None
    for kind in ("exact", "prefix", "suffix", "contains"):
        if f"{kind}Match" in matcher:
            return matcher[f"{kind}Match"]
    return string(matcher.get("stringMatch", {}))


def domain(text):
    """A host that a virtual host's domain covers."""
    if text == "*":
        return "unknown.test"
    return text.replace("*", "any", 1)


def path(match):
    """A path that a RouteMatch accepts, its query aside."""
    if "safeRegex" in match:
        return regex(match["safeRegex"]["regex"])
    if "pathSeparatedPrefix" in match:
        return match["pathSeparatedPrefix"] + "/more"
    return match.get("path") or match.get("prefix", "/")
