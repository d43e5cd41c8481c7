"""A file that is none, or a zip made to do harm or by another system, would end in a traceback or in wrong examples."""

import os
import pathlib
import struct
import zipfile
from collections.abc import Callable

import pytest
from data.making import write

from diffcurr.data import storage
from diffcurr.data.sources import BadExample
from diffcurr.data.storage import open_storage
from diffcurr.errors import UserError


def test_a_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden files are not there; links are followed, but not in circles; nothing waits for a pipe's writer."""
    home = write(
        tmp_path / "home", {"data/a/1.png": b"one", "data/.hidden/2.png": b"", "data/._3.png": b"", "b/4.png": b"four"}
    )
    data = home / "data"
    (data / "linked").symlink_to(home / "b")
    (data / "a" / "circle").symlink_to(data)
    (data / "a" / "same.png").symlink_to(data / "a" / "1.png")
    (data / "gone.png").symlink_to(home / "nowhere")
    (data / "self").symlink_to(data / "self")
    os.mkfifo(data / "pipe.png")
    monkeypatch.setenv("HOME", str(home))
    found = open_storage("~/data")
    assert found.names == ["a/1.png", "a/same.png", "gone.png", "linked/4.png", "pipe.png", "self"]
    assert [found.read(name) for name in ("a/1.png", "a/same.png", "linked/4.png")] == [b"one", b"one", b"four"]
    assert found.size("linked/4.png") == 4
    assert found.unreadable == {
        "gone.png": "is a link to nothing",
        "pipe.png": "is no regular file",
        "self": "is a link to nothing",
    }
    for name, message in (("pipe.png", "is no regular file"), ("gone.png", "cannot be read: No such file")):
        with pytest.raises(BadExample, match=message):
            found.read(name)


def test_what_is_no_folder_and_no_zip(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"no zip")
    for name, message in (
        ("pipe", "neither a folder nor a zip, but no regular file"),
        ("file", "neither a folder nor a zip that can be read: File is not a zip file"),
        ("nowhere", "there is nothing there; give a folder or a zip"),
    ):
        with pytest.raises(UserError, match=f"dataset.data_dir = .*{message}") as caught:
            open_storage(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_a_zip_from_another_system(tmp_path: pathlib.Path) -> None:
    names = {
        "cat/1.png": b"one",
        "cat\\2.png": b"two",
        "./cat/3.png": b"three",
        "__MACOSX/cat/._1.png": b"",
        "cat/.DS_Store": b"",
        "empty/": b"",
    }
    found = open_storage(str(write(tmp_path / "mac", names, as_zip=True)))
    assert found.names == ["cat/1.png", "cat/2.png", "cat/3.png"]
    assert [found.read(name) for name in found.names] == [b"one", b"two", b"three"]
    assert found.size("cat/3.png") == 5


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "a/../../b.png", "..\\a.png", "C:\\a.png"])
def test_names_outside_of_the_zip(name: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="the entry .* lies outside of the zip") as caught:
        open_storage(str(write(tmp_path / "outside", {"b.png": b"", name: b""}, as_zip=True)))
    assert name in str(caught.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.png", b"1")
        archive.writestr("a.png", b"2")
    with pytest.raises(UserError, match=r"two entries are named a\.png"):
        open_storage(str(tmp_path / "two.zip"))


def flag_as_encrypted(content: bytearray) -> None:
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1


def name_another_method(content: bytearray) -> None:
    struct.pack_into("<H", content, 8, 97)
    struct.pack_into("<H", content, content.index(b"PK\x01\x02") + 10, 97)


def change_a_byte(content: bytearray) -> None:
    content[content.index(b"some bytes")] ^= 1


def claim_more(content: bytearray) -> None:
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 2**31)


def claim_less(content: bytearray) -> None:
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 5)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (flag_as_encrypted, "is encrypted: unpack the zip"),
        (name_another_method, "is compressed by method 97"),
        (change_a_byte, "cannot be unpacked: Bad CRC-32"),
        (claim_more, "has 2,147,483,648 bytes: more than 536,870,912 are not read"),
        (claim_less, "cannot be unpacked: Bad CRC-32|is cut off"),
    ],
)
def test_a_harmed_entry(harm: Callable[[bytearray], None], message: str, tmp_path: pathlib.Path) -> None:
    content = bytearray(write(tmp_path / "good", {"a.png": b"some bytes"}, as_zip=True).read_bytes())
    harm(content)
    (tmp_path / "bad.zip").write_bytes(content)
    found = open_storage(str(tmp_path / "bad.zip"))
    with pytest.raises(BadExample, match=message) as caught:
        found.read("a.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_off_zip(share: float, tmp_path: pathlib.Path) -> None:
    whole = write(tmp_path / "good", {f"{index}.png": b"some bytes" for index in range(20)}, as_zip=True).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"cut\.zip: neither a folder nor a zip that can be read"):
        open_storage(str(tmp_path / "cut.zip"))
    # Its end is there, but not all of the list of its entries.
    end = whole.index(b"PK\x05\x06")
    (tmp_path / "cut.zip").write_bytes(whole[: end - 30] + whole[end:])
    with pytest.raises(UserError, match=r"cut\.zip: neither a folder nor a zip that can be read"):
        open_storage(str(tmp_path / "cut.zip"))


def test_a_bomb_is_not_unpacked(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MOST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10_000_000))
        archive.writestr("b.png", bytes(1000))
    found = open_storage(str(tmp_path / "bomb.zip"))
    assert found.read("b.png") == bytes(1000)
    for place in (found, open_storage(str(write(tmp_path / "large", {"a.png": bytes(1001)})))):
        with pytest.raises(BadExample, match="bytes: more than 1,000 are not read"):
            place.read("a.png")
