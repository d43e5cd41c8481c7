import pathlib

import pytest

from diffcurr import atomic_file


def test_appears_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "result.txt"
    with atomic_file.replacing(target) as temporary:
        temporary.write_text("first")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), atomic_file.replacing(target) as temporary:
        temporary.write_text("x" * (1 // 0))
    assert target.read_text() == "first"
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_that_is_gone_does_not_come_back(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file.replacing(tmp_path / "gone" / "result.txt") as temporary:
        temporary.write_text("first")
    assert not list(tmp_path.iterdir())
