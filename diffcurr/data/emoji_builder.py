"""The TFDS builder of `emoji`. Import it only to prepare or read the data set: importing TFDS takes a second."""

import collections
import json
import tarfile
from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.download.checksums import UrlInfo

from diffcurr.data import pictures
from diffcurr.data.emoji_names import CATEGORIES, VENDORS, Picture, chosen

VERSION = "16.0.0"
SIZE = 64
_PACKAGES = {  # vendor -> size and SHA-256 of the package on npm
    "google": (74344091, "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"),
    "twitter": (61683754, "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"),
}


def _url(vendor: str) -> str:
    name = f"emoji-datasource-{vendor}"
    return f"https://registry.npmjs.org/{name}/-/{name}-{VERSION}.tgz"


class Emoji(tfds.core.GeneratorBasedBuilder):
    """Emoji of two vendors with their names, 64x64, on white; see `emoji_names` for which, and for the splits.

    They are those of npm's packages emoji-datasource-google (pictures of Noto Emoji, Apache License 2.0) and
    emoji-datasource-twitter (Twemoji, CC-BY 4.0) of https://github.com/iamcal/emoji-data (MIT).
    """

    VERSION = tfds.core.Version("1.0.0")
    FETCHED_BY: ClassVar[str] = "python launch/emoji_from_npm.py {}"
    url_infos: ClassVar[dict[str, UrlInfo]] = {
        _url(vendor): UrlInfo(size=size, checksum=sha256, filename=_url(vendor).rpartition("/")[2])
        for vendor, (size, sha256) in _PACKAGES.items()
    }

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            homepage="https://github.com/iamcal/emoji-data",
            license="pictures of google: Apache-2.0; of twitter: CC-BY-4.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CATEGORIES),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "name": tfds.features.Text(),
                    "base": tfds.features.Text(),
                    "vendor": tfds.features.ClassLabel(names=VENDORS),
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        archives = dl_manager.download({vendor: _url(vendor) for vendor in VENDORS})
        files = {vendor: _read(archives[vendor], vendor) for vendor in VENDORS}
        of_split: dict[str, list[Picture]] = collections.defaultdict(list)
        for picture in chosen(json.loads(files[VENDORS[0]]["emoji.json"])):  # both packages hold the same
            of_split[picture.split].append(picture)
        return {split: self._generate_examples(of_split[split], files) for split in ("train", "test")}

    def _generate_examples(
        self, taken: list[Picture], files: dict[str, dict[str, bytes]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for picture in taken:
            yield (
                f"{picture.vendor}/{picture.file}",
                {
                    "image": pictures.decode(files[picture.vendor][picture.file], SIZE),
                    "label": picture.category,
                    "captions": picture.captions,
                    "name": picture.name,
                    "base": picture.base,
                    "vendor": picture.vendor,
                },
            )


def _read(path: epath.PathLike, vendor: str) -> dict[str, bytes]:
    """emoji.json and the pictures of a package."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            if folder == f"package/img/{vendor}/{SIZE}" or member.name == "package/emoji.json":
                content = archive.extractfile(member)
                assert content is not None, f"{member.name} is no file"
                found[name] = content.read()
    return found
