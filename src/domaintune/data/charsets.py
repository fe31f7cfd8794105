"""Encodings of text: by the names that people give them, and guessed from the bytes of a file."""

import codecs
import encodings.aliases
import io
import re
from collections.abc import Iterable

from domaintune.config.checks import nearest
from domaintune.errors import UsageError

ESCAPES = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")  # codecs, but of no files
KNOWN = "utf-8, utf-16, windows-1252, windows-1251, big5, gbk, shift_jis, euc-kr"
WESTERN = "“”„‘’‚«»‹›–—…€°§·•™®©\u00a0\u202f"
HIRAGANA = "".join(map(chr, range(0x3041, 0x3094)))
KATAKANA = "".join(map(chr, range(0x30A1, 0x30FD)))
WIDE = "，。、！？：；「」『』（）《》“”…—"
# By language, the letters and signs beyond ASCII that its texts are mostly made of.
LATIN = {
    "German": "äöüß" + WESTERN,
    "French": "éèêëàâùûîïôçœ" + WESTERN,
    "Spanish and Portuguese": "áéíóúñüãõâêôçà¿¡ºª" + WESTERN,
    "Italian": "àèéìòù" + WESTERN,
    "Nordic": "åäöæøé" + WESTERN,
    "Polish": "ąćęłńóśźż" + WESTERN,
    "Czech and Slovak": "áčďéěíňóřšťúůýžľĺôä" + WESTERN,
    "Hungarian": "áéíóöőúüű" + WESTERN,
    "Romanian": "ăâîșțşţ" + WESTERN,
    "Turkish": "çğıöşüâ" + WESTERN,
    "Baltic": "āčēģīķļņšūžąęėįųõäöü" + WESTERN,
}
ALPHABETS = {
    "Russian": "оеаинтсрвлкмі",
    "Greek": "αοιετνσηυρκπςά",
    "Hebrew": "יוהלאמתרבנש",
    "Arabic": "الينومرتبةكسعفد",
    "Thai": "านรกอเงยมลวดทสต่ัี้",
}
LETTERS = {
    **LATIN,
    **ALPHABETS,
    "Traditional Chinese": WIDE
    + "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作"
    "裡用道行所然家種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心她本前開但因只從想實"
    "日者意無力它與長把機十民第公此已工使情明性知全三又關點正業外將兩高間由問很最重新市今",
    "Simplified Chinese": WIDE
    + "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作"
    "里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实"
    "日者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重新市今",
    "Japanese": WIDE + HIRAGANA + KATAKANA + "日一人年大国本中会生上行出分前時今見学気",
    "Korean": "이다는을가에의고하지도를은기사로어서나대리한자그시라인아있해것부정수일들제과장전안원니게만적스구보상"
    "여요으조소동들면오선주성우무비마연개신세계공미관경유용방없너까말내았었습니며든년때간생반거모날와",
}
# The share of a text's signs beyond ASCII that these make up, where it isn't nearly all of them.
SHARES = {"Traditional Chinese": 0.4, "Simplified Chinese": 0.4, "Japanese": 0.7, "Korean": 0.6}
SHARES |= dict.fromkeys(ALPHABETS, 0.7)
WEST = ("German", "French", "Spanish and Portuguese", "Italian", "Nordic")
# What text that isn't UTF-8 mostly is in. Of equals the first is named.
USUAL: dict[str, tuple[str, ...]] = {
    "windows-1252": WEST,
    "windows-1250": ("Polish", "Czech and Slovak", "Hungarian", "Romanian", "German"),
    "windows-1251": ("Russian",),
    "windows-1253": ("Greek",),
    "windows-1254": ("Turkish",),
    "windows-1255": ("Hebrew",),
    "windows-1256": ("Arabic",),
    "windows-1257": ("Baltic",),
    "cp874": ("Thai",),
    "koi8-r": ("Russian",),
    "iso-8859-2": ("Polish", "Czech and Slovak", "Hungarian", "Romanian"),
    "cp850": WEST,
    "mac-roman": WEST,
    "big5": ("Traditional Chinese",),
    "cp950": ("Traditional Chinese",),
    "big5hkscs": ("Traditional Chinese",),
    "gbk": ("Simplified Chinese", "Traditional Chinese"),
    "gb18030": ("Simplified Chinese", "Traditional Chinese"),
    "shift_jis": ("Japanese",),
    "cp932": ("Japanese",),
    "euc-jp": ("Japanese",),
    "euc-kr": ("Korean",),
    "cp949": ("Korean",),
    "utf-16-le": tuple(LETTERS),
    "utf-16-be": tuple(LETTERS),
    "utf-8": tuple(LETTERS),
}
# What programs for the desk call encodings.
PEOPLE_SAY = {
    "ansi": "; Windows means windows-1252 by ANSI in Western Europe, big5 in Taiwan, gbk in China, shift_jis in Japan",
    "unicode": "; what Windows calls Unicode is utf-16",
    "auto": "; leave it out, and the message on a file that isn't UTF-8 names those that would read it",
}
SAMPLE = 20_000  # characters that are looked at
NAMED = 3  # encodings that a message names
PLAUSIBLE = 0.4  # the least fit of one that is named
NOT_ASCII = re.compile(r"[^\x00-\x7f]")
RUN = re.compile(r"[A-Za-z]?[^\x00-\x7f]+[A-Za-z]?")
MANY = re.compile(r"[^\x00-\x7f]{5,}")  # in no word of a language that is written in Latin letters


def find_codec(encoding: str) -> str:
    """What Python calls an encoding.

    Raises:
        UsageError: it knows none of that name, or one that is not for text.
    """
    name = _codec_of_text(encoding)
    if name is None:
        aliases = {alias for pair in encodings.aliases.aliases.items() for alias in pair}
        known = sorted(alias.replace("_", "-") for alias in aliases if _codec_of_text(alias))
        hint = PEOPLE_SAY.get(encoding.lower()) or nearest(encoding.lower().replace("_", "-"), known)
        raise UsageError(f"data.encoding={encoding}: no encoding of text has this name{hint}; usual are {KNOWN}")
    return name


def _codec_of_text(encoding: str) -> str | None:
    try:
        name = codecs.lookup(encoding).name
        io.TextIOWrapper(io.BytesIO(), encoding=name).close()  # raises for codecs that make no text, as base64
    except (LookupError, ValueError):
        return None
    return None if name.replace("_", "-") in ESCAPES else name


def fitting_encodings(chunks: Iterable[bytes]) -> list[str]:
    """The usual encodings that decode the whole of a file and make likely text of it, the likeliest first.

    Args:
        chunks: its bytes; an empty chunk is the last.
    """
    decoders = {name: codecs.getincrementaldecoder(name)() for name in USUAL}
    samples = dict.fromkeys(decoders, "")
    for chunk in chunks:
        for name, decoder in list(decoders.items()):
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError:
                del decoders[name]
                continue
            samples[name] += _sample(text, SAMPLE - len(samples[name]))
    fits = {name: max(_fit(samples[name], language) for language in USUAL[name]) for name in decoders}
    ranked = sorted(fits, key=lambda name: -fits[name])  # equals stay in their order
    best = max(fits.values(), default=0.0)
    likely = [name for name in ranked if fits[name] >= max(PLAUSIBLE, best * 0.8)]
    first_of = {samples[name]: name for name in reversed(likely)}  # of those that say the same
    return [name for name in likely if first_of[samples[name]] == name][:NAMED]


def _sample(text: str, size: int) -> str:
    """A part of a text from its first character on that tells encodings apart."""
    first = NOT_ASCII.search(text) or re.search("\0", text)
    if first is None:
        return ""
    start = max(0, first.start() - 2)
    return text[start : start + size]


def _fit(sample: str, language: str) -> float:
    """How much a text looks like one of this language, from 0 to 1."""
    if "\0" in sample:
        return 0.0
    signs = len(NOT_ASCII.findall(sample))
    if not signs:
        return 1.0
    if language in LATIN:
        sample = MANY.sub("", sample)
    elif language in ALPHABETS:
        # No word of another alphabet holds Latin letters.
        sample = " ".join(run for run in RUN.findall(sample) if not (run[0].isascii() or run[-1].isascii()))
    usual = sum(sign in LETTERS[language] for sign in NOT_ASCII.findall(sample.lower()))
    return min(1.0, usual / signs / SHARES.get(language, 1.0))
