"""Which MR sequence a file's name or a SeriesDescription says: T1, T1c, T2, FLAIR, another kind, or nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

#: Sequences that are none of the four anatomical ones, what is computed of them, and pictures of the screen.
_OTHER = re.compile(
    r"adc|e?dwi|dti|trace|diff|ep2d\w*|perf\w*|pwi|dsc|dce|dyn\w*|r?cb[vf]|mtt|ttp|tmax|bold|fmri|swi|swan|"
    r"qsm|loc\w*|scout|survey|3plane|t2star\w*|t2s|t2\*|t[12]rho|asl|mra|mrv|tof|twist|tricks|stir|t2stir|dir|psir|dual|"
    r"ciss|fiesta\w*|ci3d|trufi\w*|multiecho|\w*map(s|ping)?|b[01]map\w*|relax\w*|ratio|ktrans|mip|inv[12]|subtr\w*|"
    r"minus|synth\w*|symri|fus(ed|ion)|spectro\w*|report|screen\w*|([ctl]|cervical|thoracic|lumbar)?spine"
)
#: With T2 they are T2*: gradient echoes.
_GRADIENT_ECHO = re.compile(r"gre|ffe|fl[23]d|hemo|haemo|heme|medic")
#: Proton density and T2 of one series, the two images of a subtraction, echo-planar T2, T2*; none is one of the four.
_TWO = re.compile(
    r"\b(pdw? ?[/+&-]? ?t2|t2w? ?[/+&-]? ?pd)|\bsub(?! ?-?\d)\b|\bt2w? ?[ -]?(star|epi)\b|\bepi t2|multi[ -]echo|"
    r"\bb ?= ?\d|\bb0\b|mp2rage.*\bt1 images|\binv[ -]\d"
)
_PLANE = r"(?:[23]d|ax|axial|tra|sag|cor|oax|obl)?"
_T1 = re.compile(
    rf"e?{_PLANE}t1\w*|unit1|(ce|gd|gad|gado)t1\w*|(me)?mp2?rage\w*|mpr|i?r?f?spgr|bravo|tfe|tfl(3d\w*|me)?|mdeft|(star)?vibe|"
    r"e?thrive|lava|(spgr|bravo|vibe|mpr)(gd|gad\w*|ce|km|post)"
)
_T2 = re.compile(rf"{_PLANE}t2\w*")
_FLAIR = re.compile(r"\w*flair\w*|t2f|fla|darkfluid")
#: Beside these ``mpr`` is a reformatted image; by itself it is short for MPRAGE.
_REFORMATTED = re.compile(rf"{_T2.pattern}|{_FLAIR.pattern}|pdw?|tirm|spc|space|cube|vista")
#: One word for a T1 after contrast; words that say contrast beside one for T1.
_T1C = re.compile(
    rf"{_PLANE}t1w?i?(c|ce|cemri?|gd\w*|gad\w*|km|post(?!op|rt|surg|treat|ther|rad|chem)\w*)\d?|(ce|gd|gad|gado)t1\w*|"
    r"(mprage|mpr|spgr|bravo|vibe|tfe)(c|gd|gad\w*|ce|km|post)"
)
_AGENT = (
    r"dotarem|magnevist|prohance|multihance|omniscan|clariscan|elucirem|vueway|eovist|primovist|ablavar"  # and gad\w*
)
_CONTRAST = re.compile(rf"\w*(gd|gad\w*|post|kontra\w*|contrast\w*|enh\w*)|контраст\w*|inje[ck]\w*|{_AGENT}")
#: They say contrast behind a word for T1; ``ce`` also right before it, where ``c`` may be a site.
_CONTRAST_BEHIND = re.compile(r"c|ce|\+")
#: So do these, and after a word for with, without, before or after; elsewhere they may be a site or a patient.
_CONTRAST_SHORT = re.compile(r"km|mdc|civ|inj|apos|dopo")
#: Behind a word for T1 they may say contrast or not: ``pos`` is Portuguese for after, and a position.
_UNCLEAR = frozenset(["pos", "unclear"])
#: Words that say that there is none, by themselves or of the words for contrast that follow.
_NATIVE = re.compile(
    rf"native?|nativo|blanco|\w*(un|non)enh\w*|{_PLANE}t1w?(pre|nativ\w*|nc|wo)|mprage(pre|nativ\w*)|"
    r"\w*(pre|non?|wo|without|ohne|vor|sans|sin)(con|km|([ck]ontra|gad|gd)\w*)"
)
_NOT_GIVEN = frozenset((
    "no", "non", "not", "none", "nil", "without", "wo", "ohne", "kein", "keine", "keines", "nein", "nicht", "sans",
    "aucun", "sin", "ninguno", "sem", "senza", "nessuno", "zonder", "geen", "bez", "brak", "utan", "без", "нет",
))  # fmt: skip
_BEFORE = frozenset(["pre", "pra", "prae", "before", "vor", "avant", "prima", "antes", "voor", "przed", "до"])
_WITHOUT = _NOT_GIVEN | _BEFORE
_WITH = frozenset((
    "with", "after", "post", "mit", "nach", "avec", "apres", "con", "despues", "com", "pos", "depois", "dopo", "met",
))  # fmt: skip
#: Between such a word and the one for contrast.
_BETWEEN = frozenset((
    "iv", "i", "v", "de", "di", "del", "du", "da", "do", "of", "any", "dem", "the", "con",
    "ax", "axial", "tra", "sag", "cor", "oax", "obl", "3d", "2d",
))  # fmt: skip
#: What a scan may be before or after of beside contrast; and BIDS' subject, session and space.
_EVENT = re.compile(
    r"\b(pre|post?|apos|dopo)[- ]?(op\w*|surg\w*|[ck]h?irur\w*|rt|treat\w*|therap\w*|resect\w*|"
    r"chemo\w*|radi\w*|biops\w*)\b|\b(sub|ses)-\w+|(?<=\w )space-\w+(?= )"
)
#: What a minus before or behind it, or ``-frei``, denies.
_DENIABLE = rf"(c|ce|km|mdc|civ|gd\w*|gad\w*|[ck]ontrast\w*|{_AGENT})"
_YES = rf"({'|'.join(sorted(_WITH))}|w)"
_NO = rf"({'|'.join(sorted(_WITHOUT))}|w/o)"
_AND = r"(and|or|und|oder|et|ou|y|o|e|en|&|/|\+)"
#: Signs and scripts, as words: with, without, before and after contrast.
_SIGNS = (
    (re.compile("[\u2010\u2012\u2013\u2212]"), "-"),
    (
        re.compile(
            rf"\+ ?/ ?-|- ?/ ?\+|±|\bw ?[/&+-]{{0,2}} ?(w/?o|without)\b|"
            rf"\b{_YES} ?{_AND} ?{_NO}\b|\b{_NO} ?{_AND} ?{_YES}\b"
        ),
        " without contrast post ",
    ),
    (re.compile(r"w/o"), "without"),
    # a minus joined to the word for T1 is a hyphen: T1-Gd; between two spaces it may be either
    (re.compile(rf"(?<![^\s(\[,:;/])-{_DENIABLE}\b"), " native "),
    (re.compile(rf"(?:\b|(?<=t1)|(?<=t1w)){_DENIABLE}(-(?![\w-])| ?\(-\)|[ -]?(frei|free)\b)|\bc -$"), " native "),
    (re.compile(rf"((?:t1|mprage|spgr|bravo|vibe).*?) - {_DENIABLE}\b|\b{_DENIABLE} -$"), r"\1 unclear "),
    (re.compile(r"\bs/c\b|造影前|平扫|平掃|単純"), " native "),
    (re.compile(r"\bc/c\b|造影|增强|增強|조영|(?<![a-z0-9])\+ ?c\b|\bc ?\+"), " contrast "),
    (re.compile(r"\bce-(gd|gadolinium)\b"), " contrast "),
    (re.compile(r"\bce-none\b"), " native "),
    (re.compile(r"\bacq-ce\b"), " contrast "),
    (re.compile(r"dark[- ]?fluid|\bda-fl\b"), "darkfluid"),
    (re.compile(r"\bmp[- ]rage"), "mprage"),
)
#: What comes after these is the image that the one named before them was registered to.
_ONTO = re.compile(
    r"\b(reg|registered|coreg|aligned)?\b ?\b(to|2|in|on|onto|into)\b ?(?P<target>.*)|to(?P<stuck>t[12]\w*)"
)
_SEQUENCE_FIRST = re.compile(rf"({_T1.pattern}|{_T2.pattern}|{_FLAIR.pattern})")


@dataclass(frozen=True)
class SaidSequence:
    """What a text says of a sequence.

    Attributes
    ----------
    sequence
        ``T1``, ``T1c``, ``T2``, ``FLAIR``, or empty.
    other
        Why it is empty: the text says another kind of image, or two of the four. Else it says nothing.
    unclear
        Of these, two of the four, or a T1 with and without contrast: an image of the head that somebody has to name.
    native
        A T1 that is said to be one without contrast.
    """

    sequence: str = ""
    other: bool = False
    unclear: bool = False
    native: bool = False


def sequence_of(text: str) -> str:
    """``T1``, ``T1c``, ``T2`` or ``FLAIR`` for a file's name or a SeriesDescription; empty where it names none, or two.

    >>> [sequence_of(name) for name in ("LGG-203_T2.nii.gz", "AX T1 POST GD", "Ax T2 FLAIR", "SAG T1 MPRAGE", "ADC")]
    ['T2', 'T1c', 'FLAIR', 'T1', '']
    >>> [sequence_of(name) for name in ("AX T1 PRE CONTRAST", "t2_tirm_tra_dark-fluid", "AX T2 GRE", "AX T1 PRE/POST")]
    ['T1', 'FLAIR', '', '']
    >>> [sequence_of(name) for name in ("T1 tra ohne KM", "T1 après injection", "C+ T1", "T2_reg_to_T1.nii.gz")]
    ['T1', 'T1c', 'T1c', 'T2']
    """
    return said_sequence(text).sequence


def said_sequence(text: str) -> SaidSequence:
    """What a file's name or a SeriesDescription says of the sequence, in any of the usual languages."""
    plain = _plain(text)
    words = re.findall(r"[^\W_]+\*?|\+", plain)
    if any(_OTHER.fullmatch(word) for word in words) or _TWO.search(plain):
        return SaidSequence(other=True)
    if any(_REFORMATTED.fullmatch(word) for word in words):
        words = [word for word in words if word != "mpr"]
    t1, t2, flair = (any(kind.fullmatch(word) for word in words) for kind in (_T1, _T2, _FLAIR))
    if t1 and any(_T2.fullmatch(word) for word in words if not _FLAIR.fullmatch(word)):
        return SaidSequence(other=True, unclear=True)
    if t1:
        return _t1(words)
    if flair:
        return SaidSequence("FLAIR")
    if not t2:
        return SaidSequence(other="tirm" in words)
    unclear = "tirm" in words or any(_GRADIENT_ECHO.fullmatch(word) for word in words)
    return SaidSequence(other=True) if unclear else SaidSequence("T2")


def _plain(text: str) -> str:
    """In small letters without accents and events, with words for signs, and without what follows ``registered to``."""
    accented = unicodedata.normalize("NFC", text.lower().replace("_", " "))
    folded = unicodedata.normalize("NFKD", re.sub(r"\ba?pós\b", "apos", accented))
    plain = "".join(letter for letter in folded if not unicodedata.combining(letter))
    plain = _EVENT.sub(" ", unicodedata.normalize("NFC", plain))
    for sign, word in _SIGNS:
        plain = sign.sub(word, plain)
    for onto in _ONTO.finditer(plain):
        before, target = plain[: onto.start()], onto["target"] or onto["stuck"] or ""
        if _SEQUENCE_FIRST.match(target) and any(_SEQUENCE_FIRST.match(word) for word in before.split()):
            return before
    return plain


def _t1(words: Sequence[str]) -> SaidSequence:
    """``T1`` or ``T1c`` by the words of a name; neither where they say both."""
    if any(_T1C.fullmatch(word) for word in words):
        return SaidSequence("T1c")
    first = next(at for at, word in enumerate(words) if _T1.fullmatch(word))
    native, enhanced, denied, led = "pre" in words, words[-1] == "with", "", False
    for at, word in enumerate(words):
        behind = at > first or (word == "ce" and at == first - 1)
        if _NATIVE.fullmatch(word) or (behind and word == "nc"):
            native, enhanced = True, enhanced or (led and not denied)
        elif _says_contrast(word, behind, led):
            native |= bool(denied)
            enhanced |= not denied or word == "post"
            denied = "" if word == "post" else denied
        elif word in _WITHOUT:
            denied = word
        elif at == first:
            native |= denied in ("without", "wo", "ohne")
            denied = ""
        elif word not in _BETWEEN:
            denied = ""
        led = bool(denied) or word in _WITH or (led and word in _BETWEEN)
    native |= bool(denied)
    unclear = not _UNCLEAR.isdisjoint(words[first:])
    if (native and enhanced) or (unclear and not (native or enhanced)):
        return SaidSequence(other=True, unclear=True)
    return SaidSequence("T1c") if enhanced else SaidSequence("T1", native=native)


def _says_contrast(word: str, behind: bool, led: bool) -> bool:
    """Whether a word says contrast, where it is behind one for T1 or led by one for with or without."""
    short = (behind or led) and _CONTRAST_SHORT.fullmatch(word)
    return bool(_CONTRAST.fullmatch(word) or short or (behind and _CONTRAST_BEHIND.fullmatch(word)))


_NO_AGENT = re.compile(
    rf"[\W_]*((null|false|n|na|n/a|n\.a|0([.,]0*)?( ?ml)?)?[\W_]*|"
    rf"({'|'.join(sorted(_WITHOUT))}|w/o|nativ\w*|unenhanced|kein\w*)(?![ -]?ioni)(\W.*)?)|"
    r".*\W(none|no|nil|nein|keine?s?|(not|nicht|non)( (given|used|administered|gegeben|verabreicht))?)\W*"
)


def says_no_agent(text: str) -> bool:
    """Whether consoles and people write so that no agent was given.

    >>> [says_no_agent(text) for text in ("ohne KM", "none.", "--", "Gadovist not given", "Gadovist")]
    [True, True, True, True, False]
    """
    return all(_NO_AGENT.fullmatch(said.strip().lower()) for said in text.split("\\"))
