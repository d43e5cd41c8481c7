"""Emoji as a person would ask for them: captions, which belong together, and which pictures are taken.

The names are those of `emoji.json` in npm's emoji-datasource packages. Most are Unicode's, which tell how a character
was once printed: its red heart is a HEAVY BLACK HEART.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from diffcurr.data.emoji_table import NAMES

VENDORS = ("google", "twitter")
CATEGORIES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
"""The classes, in the order of their numbers. Component, five swatches of skin, is none."""

TONES = {
    "1F3FB": "light skin tone",
    "1F3FC": "medium-light skin tone",
    "1F3FD": "medium skin tone",
    "1F3FE": "medium-dark skin tone",
    "1F3FF": "dark skin tone",
}


class Picture(NamedTuple):
    """One picture of the data set.

    Attributes:
      vendor: who drew it, one of VENDORS.
      file: name of the picture in the vendor's package.
      category: one of CATEGORIES.
      name: the caption.
      base: see `base_of`.
      split: "train" or "test".
    """

    vendor: str
    file: str
    category: str
    name: str
    base: str
    split: str

    @property
    def captions(self) -> tuple[str, str]:
        """The name, alone and with the vendor's style."""
        return self.name, f"{self.name}, {self.vendor} style"


def chosen(entries: Sequence[Mapping[str, Any]]) -> Iterator[Picture]:
    """The pictures that are taken: each emoji once from each vendor.

    Those that come in skin tones take the plain one and the five tones in turn, so that all six are equally frequent
    in each split and of each vendor. Turns go by a hash: in Unicode's order, in which man and woman follow person, a
    third of all tones would always be men's. Two people who hold hands have the same tone.

    Args:
      entries: what emoji.json holds.
    """
    turns = {"train": 0, "test": 0}
    for entry in sorted(entries, key=lambda entry: _hash(entry["unified"])):
        if entry["category"] not in CATEGORIES or _shows_no_gender(entry["name"]):
            continue
        name, variants = caption(entry), entry.get("skin_variations", {})
        base = base_of(name)
        split = split_of(base)
        for number, vendor in enumerate(VENDORS):
            if not entry[f"has_img_{vendor}"] or (vendor, entry["short_name"]) in WRONG:
                continue
            toned = ((tone, variants.get(code) or variants.get(f"{code}-{code}")) for code, tone in TONES.items())
            there = [(name, entry)]
            there += [(f"{name}, {tone}", one) for tone, one in toned if one and one[f"has_img_{vendor}"]]
            full, one = there[(turns[split] + 3 * number) % len(there)]  # another one of each vendor
            yield Picture(vendor, one["image"], entry["category"], full, base, split)
        turns[split] += bool(variants)


def caption(entry: Mapping[str, Any]) -> str:
    """What a person would call an emoji, whatever its skin tone."""
    if entry["short_name"] in NAMES:
        return NAMES[entry["short_name"]]
    if entry["name"].endswith(" Flag"):
        return _flag(entry["name"].removesuffix(" Flag"))
    name = entry["name"].lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if name.startswith("clock face "):
        hour = name.removeprefix("clock face ")
        half = f"half past {hour.removesuffix('-thirty')}"
        return f"clock showing {half if hour.endswith('-thirty') else hour.replace('oclock', _OCLOCK)}"
    kind, _, rest = name.partition(": ")
    if rest and kind == "family":
        return f"family of {_FAMILIES[rest]}"
    if rest and kind in _COUPLES:
        return f"{_PAIRS[rest]} {_COUPLES[kind]}"
    if rest:
        return f"bald {kind}" if rest == "bald" else f"{kind} with {'a ' if rest == 'beard' else ''}{rest}"
    for ending in (" sign", " symbol") if entry["category"] == "People & Body" else (" symbol",):
        name = name.removesuffix(ending)
    return name


def base_of(name: str) -> str:
    """A caption without skin tone, gender, direction, size, ordinal, hour, key of a telephone or make-up of a family.

    Emoji of one base lie in one split. A flag that looks as another's is of that one's base.
    """
    name = re.sub(", [a-z-]+ skin tone$", "", name)
    if name.startswith("flag of "):
        return f"flag of {_SAME_FLAG.get(name[8:], name[8:])}"
    for pattern, instead in _LESS:
        name = pattern.sub(instead, name)
    return " ".join(name.split()) or "person"


def split_of(base: str) -> str:
    """The split of the emoji of a base, "test" for a tenth of them; it never changes."""
    return "test" if int(_hash(base)[:8], 16) % 10 == 0 else "train"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _shows_no_gender(name: str) -> bool:
    """Families of men, women, boys and girls: vendors draw most of them all alike now, as silhouettes."""
    return name.startswith("FAMILY: ") and "ADULT" not in name


def _flag(country: str) -> str:
    for old, new in (("&", "and"), ("\N{RIGHT SINGLE QUOTATION MARK}", "'"), ("U.S.", "US"), ("St. ", "Saint ")):
        country = country.replace(old, new)
    country = _COUNTRIES.get(country, re.sub(r" \(.*\)", "", country))
    return f"flag of {'the ' if _WITH_ARTICLE.match(country) else ''}{country}"


_OCLOCK = "o'clock"
_WITH_ARTICLE = re.compile(
    r"(?!South Georgia|Heard)("
    r"United |Central |US |Isle |British |Caribbean |French Southern |Turks |Northern |Democratic |European |Republic |"
    r".*(Islands|Republic|Territories)$|(Bahamas|Comoros|Gambia|Maldives|Netherlands|Philippines)$)"
)
_COUNTRIES = {
    "Congo - Kinshasa": "Democratic Republic of the Congo",
    "Congo - Brazzaville": "Republic of the Congo",
    "Hong Kong SAR China": "Hong Kong",
    "Macao SAR China": "Macao",
    "Heard and McDonald Islands": "Heard Island and McDonald Islands",
    "Saint Vincent and Grenadines": "Saint Vincent and the Grenadines",
}
_SAME_FLAG = {
    "Heard Island and McDonald Islands": "Australia",
    "Bouvet Island": "Norway",
    "Svalbard and Jan Mayen": "Norway",
    "Clipperton Island": "France",
    "Saint Martin": "France",
    "Diego Garcia": "the British Indian Ocean Territory",
    "Ceuta and Melilla": "Spain",
    "the US Outlying Islands": "the United States",
}
WRONG = {("google", "flag-sark")}
"""(vendor, short name) of pictures that show something else: the flag of Saudi Arabia."""

_COUPLES = {"kiss": "kissing", "couple with heart": "with a heart"}
_PAIRS = {"woman, man": "woman and man", "man, man": "two men", "woman, woman": "two women"}
_FAMILIES = {
    "adult, adult, child": "two adults and a child",
    "adult, adult, child, child": "two adults and two children",
    "adult, child": "an adult and a child",
    "adult, child, child": "an adult and two children",
}
_LESS = [
    (re.compile(pattern), instead)
    for pattern, instead in (
        ("^family of .*", "family"),
        ("^clock showing .*", "clock showing the hour"),
        ("^keycap .*", "keycap"),
        ("^(prince|princess|person with crown)$", "royalty"),
        ("^(boy|girl|child)$", "child"),
        ("^mer(man|maid|person)$", "merperson"),
        ("^(santa|mrs\\.|mx\\.) claus$", "claus"),
        ("^busts ", "bust "),
        (r"\b(two (men|women)|woman and man|man and woman|couple)\b", " "),
        (r"\b(man|woman|men|women|person|people|male|female|adult)\b('s)?", " "),
        (r"\bfacing (left|right)\b|\b(left|right)-facing\b", " "),
        (r"\b(up|down|left|right|upwards|downwards|leftwards|rightwards|clockwise|counterclockwise)\b(?!!)", " "),
        (r"\b(increasing|decreasing|waxing|waning|first|second|third|last)\b", " "),
        (r"\b(large|medium|small)\b", " "),
        (r"(?<!\w)-+|-+(?!\w)", " "),
    )
]
