"""If a test here fails, the packages of `emoji` are not fetched, or others are taken for them."""

import base64
import hashlib
import importlib.util
import pathlib
import types

import pytest
from data.making import emoji, emoji_packages

from diffcurr.data import emoji_builder

FILE = pathlib.Path(__file__).parents[2] / "launch" / "emoji_from_npm.py"


@pytest.fixture
def launch(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The command on a machine without npm, whose registry is a folder with tiny packages."""
    spec = importlib.util.spec_from_file_location("emoji_from_npm", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path in emoji_packages(tmp_path / "packed", [emoji("TEAPOT", "teapot", "A")]):
        name = path.name.removesuffix("-16.0.0.tgz")
        sha512 = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        monkeypatch.setitem(module.INTEGRITY, name, sha512)
        (tmp_path / "registry" / name / "-").mkdir(parents=True)
        path.rename(tmp_path / "registry" / name / "-" / path.name)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", (tmp_path / "registry").as_uri() + "/")
    monkeypatch.setattr(module.sys, "argv", ["emoji_from_npm.py", str(tmp_path / "data")])
    return module


def test_packages_and_licences_lie_where_tfds_looks(launch: types.ModuleType, tmp_path: pathlib.Path) -> None:
    launch.main()
    manual = tmp_path / "data" / "downloads" / "manual"
    assert sorted(path.name for path in manual.iterdir()) == [
        "emoji-datasource-NOTICE",
        "emoji-datasource-google-16.0.0.tgz",
        "emoji-datasource-google-LICENSE",
        "emoji-datasource-twitter-16.0.0.tgz",
        "emoji-datasource-twitter-LICENSE",
    ]
    assert (manual / "emoji-datasource-twitter-LICENSE").read_text() == "licence of twitter"
    notice = (manual / "emoji-datasource-NOTICE").read_text()
    assert all(word in notice for word in ("16.0.0", "Apache License 2.0", "CC-BY 4.0", "https://"))


def test_what_is_there_is_not_fetched_again(
    launch: types.ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch.main()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", (tmp_path / "nothing").as_uri())
    launch.main()
    path = tmp_path / "data" / "downloads" / "manual" / "emoji-datasource-google-16.0.0.tgz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SystemExit, match=r"emoji-datasource-google-16\.0\.0\.tgz cannot be fetched .* put it into"):
        launch.main()


def test_other_packages_are_refused(launch: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(launch.INTEGRITY, "emoji-datasource-twitter", "x" * 88)
    with pytest.raises(SystemExit, match=r"emoji-datasource-twitter-16\.0\.0\.tgz is not version 16\.0\.0"):
        launch.main()


def test_npm_is_asked_first(launch: types.ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for npm copies the package; one that fails is passed over."""
    npm = tmp_path / "npm"
    npm.write_text(f'#!/bin/sh\ncp "{tmp_path}"/registry/*/-/"${{2%@*}}"-16.0.0.tgz "$5"\n')
    npm.chmod(0o755)
    monkeypatch.setattr(launch.shutil, "which", lambda name: str(npm))
    target = tmp_path / "target"
    target.mkdir()
    with monkeypatch.context() as without:
        without.setenv("NPM_CONFIG_REGISTRY", (tmp_path / "nothing").as_uri())
        launch.fetch("emoji-datasource-google", target)
    npm.write_text("#!/bin/sh\nexit 1\n")
    launch.fetch("emoji-datasource-twitter", target)
    assert len(list(target.glob("*.tgz"))) == 2


def test_the_builder_wants_these_packages() -> None:
    names = {info.filename for info in emoji_builder.Emoji.url_infos.values()}
    assert names == {f"{name}-16.0.0.tgz" for name in ("emoji-datasource-google", "emoji-datasource-twitter")}
