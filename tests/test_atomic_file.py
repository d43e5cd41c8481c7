import pathlib

import pytest

from diffcurr import atomic_file


def test_appears_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "folder" / "result.txt"
    with atomic_file.replacing(target) as temporary:
        temporary.write_text("first")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), atomic_file.replacing(target) as temporary:
        temporary.write_text("x" * (1 // 0))
    assert target.read_text() == "first"
    assert list(target.parent.iterdir()) == [target]
