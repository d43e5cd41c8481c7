"""If a test here fails, captions are not what a person would say, or the same emoji lies in both splits."""

import collections

import pytest
from data.making import emoji

from diffcurr.data import emoji_names
from diffcurr.data.emoji_names import base_of, caption, chosen, split_of
from diffcurr.data.emoji_table import NAMES

TONES = tuple(emoji_names.TONES)
PEOPLE = "People & Body"


@pytest.mark.parametrize(
    ("name", "short_name", "category", "wanted"),
    [
        ("RED APPLE", "apple", "Food & Drink", "red apple"),
        ("WAVING HAND SIGN", "wave", PEOPLE, "waving hand"),
        ("WARNING SIGN", "warning", "Symbols", "warning sign"),
        ("FULL MOON SYMBOL", "full_moon", "Travel & Places", "full moon"),
        ("HEAVY BLACK HEART", "heart", "Smileys & Emotion", "red heart"),
        ("MAN: RED HAIR", "red_haired_man", PEOPLE, "man with red hair"),
        ("WOMAN: BALD", "bald_woman", PEOPLE, "bald woman"),
        ("MAN: BEARD", "man_with_beard", PEOPLE, "man with a beard"),
        ("KISS: WOMAN, MAN", "woman-kiss-man", PEOPLE, "woman and man kissing"),
        ("COUPLE WITH HEART: MAN, MAN", "man-heart-man", PEOPLE, "two men with a heart"),
        ("FAMILY: ADULT, CHILD", "family_adult_child", PEOPLE, "family of an adult and a child"),
        ("CLOCK FACE THREE OCLOCK", "clock3", "Travel & Places", "clock showing three o'clock"),
        ("CLOCK FACE THREE-THIRTY", "clock330", "Travel & Places", "clock showing half past three"),
        ("LARGE BLUE CIRCLE", "large_blue_circle", "Symbols", "blue circle"),
        ("TAURUS", "taurus", "Symbols", "taurus zodiac sign"),
        ("Japan Flag", "jp", "Flags", "flag of Japan"),
        ("Netherlands Flag", "flag-nl", "Flags", "flag of the Netherlands"),
        ("United States Flag", "us", "Flags", "flag of the United States"),
        ("St. Kitts & Nevis Flag", "flag-kn", "Flags", "flag of Saint Kitts and Nevis"),
        ("Cocos (Keeling) Islands Flag", "flag-cc", "Flags", "flag of the Cocos Islands"),
        ("Congo - Kinshasa Flag", "flag-cd", "Flags", "flag of the Democratic Republic of the Congo"),
        ("Côte d\N{RIGHT SINGLE QUOTATION MARK}Ivoire Flag", "flag-ci", "Flags", "flag of Côte d'Ivoire"),
        ("PIRATE FLAG", "pirate_flag", "Flags", "pirate flag"),
    ],
)
def test_captions(name: str, short_name: str, category: str, wanted: str) -> None:
    assert caption(emoji(name, short_name, "A", category)) == wanted


def test_captions_are_clean() -> None:
    assert all(name == " ".join(name.lower().split()) for name in NAMES.values())
    assert len(set(NAMES.values())) == len(NAMES)


@pytest.mark.parametrize(
    "alike",
    [
        ("person running", "man running", "woman running facing right", "person running, dark skin tone"),
        ("man with red hair", "woman with red hair, medium-light skin tone", "person with red hair"),
        ("astronaut", "woman astronaut"),
        ("person", "man", "woman"),
        ("child", "boy", "girl"),
        ("merperson", "merman", "mermaid"),
        ("santa claus", "mrs. claus", "mx. claus"),
        ("prince", "princess", "person with crown"),
        ("couple kissing", "two men kissing", "woman and man kissing"),
        ("people holding hands", "man and woman holding hands", "two women holding hands"),
        ("family", "family of an adult and two children"),
        ("clock showing one o'clock", "clock showing half past nine"),
        ("keycap 5", "keycap hash", "keycap ten"),
        ("left-facing fist", "right-facing fist"),
        ("arrow pointing up", "arrow pointing down left"),
        ("thumbs up", "thumbs down"),
        ("waxing crescent moon", "waning crescent moon"),
        ("large orange diamond", "small orange diamond"),
        ("man's shoe", "woman's shoe"),
        ("flag of Norway", "flag of Bouvet Island"),  # they look the same
    ],
)
def test_what_belongs_together_is_in_one_split(alike: tuple[str, ...]) -> None:
    assert len({base_of(name) for name in alike}) == 1


def test_bases_are_not_too_wide() -> None:
    apart = ("red heart", "blue heart", "flag of Niger", "flag of Nigeria", "upside-down face", "cat", "black cat")
    assert [base_of(name) for name in apart[:4]] == list(apart[:4])
    assert len({base_of(name) for name in apart}) == len(apart)


def test_the_splits_are_those_of_all_versions() -> None:
    assert [name for name in ("penguin", "red apple", "shark", "cat", "flag of Wales", "pizza") if _is_test(name)] == [
        "penguin",
        "shark",
        "flag of Wales",
    ]
    assert 80 < sum(_is_test(f"thing {number}") for number in range(1000)) < 120


def _is_test(base: str) -> bool:
    return split_of(base) == "test"


def test_tones_are_equally_frequent() -> None:
    """Each emoji once from each vendor, in another tone; all tones as often in each split, for men and women alike."""
    kinds = [f"{who} {what}" for what in range(100) for who in ("PERSON", "MAN", "WOMAN")]
    entries = [emoji(kind, kind, f"{number:X}", PEOPLE, TONES) for number, kind in enumerate(kinds)]
    taken = list(chosen(entries))
    assert len(taken) == 600 and len({(one.vendor, one.name.partition(",")[0]) for one in taken}) == 600
    count = collections.Counter((one.split, one.vendor, one.name.partition(", ")[2]) for one in taken)
    for split in ("train", "test"):
        for vendor in emoji_names.VENDORS:
            of_tone = [count[split, vendor, tone] for tone in ("", *emoji_names.TONES.values())]
            assert max(of_tone) - min(of_tone) <= 1 and min(of_tone) > 0
    of_men = collections.Counter(one.name.partition(", ")[2] for one in taken if one.name.startswith("man "))
    assert len(of_men) == 6 and min(of_men.values()) > 20
    by_vendor = collections.defaultdict(set)
    for one in taken:
        by_vendor[one.name.partition(",")[0]].add(one.file)
    assert all(len(files) == 2 for files in by_vendor.values())


def test_what_is_left_out() -> None:
    entries = [
        emoji("EMOJI MODIFIER FITZPATRICK TYPE-3", "skin-tone-3", "A", "Component"),
        emoji("FAMILY: MAN, WOMAN, BOY", "man-woman-boy", "B", PEOPLE),
        emoji("Sark Flag", "flag-sark", "C", "Flags"),
        emoji("HANDSHAKE", "handshake", "D", PEOPLE, [f"{one}-{other}" for one in TONES for other in TONES]),
        emoji("TEAPOT", "teapot", "E") | {"has_img_twitter": False},
    ]
    taken = list(chosen(entries))
    assert [(one.vendor, one.name) for one in taken if "flag" in one.name] == [("twitter", "flag of Sark")]
    assert [one.vendor for one in taken if one.name == "teapot"] == ["google"]
    shaken = [one for one in taken if one.name.startswith("handshake")]
    assert len(shaken) == 2 and len(taken) == 4
    for one in shaken:  # both hands have one tone
        assert len(set(one.file.removesuffix(".png").split("-")[1:])) <= 1
    assert shaken[0].captions == (shaken[0].name, f"{shaken[0].name}, google style")
