"""Which files of a folder or zip are the examples of a split, and what class each has: nothing of them is decoded."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffcurr.data import latents
from diffcurr.data.on_threads import each
from diffcurr.data.sources import BadExample, fingerprint
from diffcurr.data.storage import open_storage, shown
from diffcurr.errors import UserError, first_line

LABELS = "dataset.json"
SPLITS = ("train", "val", "valid", "validation", "test")
"""Names that say of a folder that it holds one split of several."""

FOUND = -1
"""As a number of classes: as many as there are."""

MOST_CLASSES = 2**24


class Listing:
    """The examples of a split by name, sorted, and the class of each.

    Classes are those of `dataset.json`, {"labels": [[name, class], ...]} (the layout of EDM's tool), or else each top
    folder is one (ImageNet's layout), sorted as numbers if all are numbers and as text otherwise. In DiT's layout of
    latents, each file of the folder NAME_features has its class in the file of the same name in NAME_labels.

    Attributes:
      storage: the folder or zip.
      prefix: what the names of all files of the split begin with in there.
      names: names of the files, from the folder on that holds the split.
      labels: int32 [example], zeros without classes.
      num_classes: how many classes there are; 0 for none.
      classes: the names of the classes where folders gave them, or None.
      splits: the splits that there are, if each is a folder.
    """

    def __init__(self, data_dir: str, suffixes: tuple[str, ...], split: str, num_classes: int):
        """
        Args:
          suffixes: with which the names of examples end, in lower case.
          num_classes: 0 for none; FOUND for as many as there are.

        Raises:
          UserError: if there is nothing at `data_dir`, no example of the split, or classes are missing or others.
        """
        self.storage = open_storage(data_dir)
        examples = [name for name in self.storage.names if name.lower().endswith(suffixes)]
        if not examples:
            raise self.storage.refuse(f"holds no {', '.join(suffixes)} file")
        self.prefix, self.splits = self._folder_of(split, examples)
        self.names = [name.removeprefix(self.prefix) for name in examples if name.startswith(self.prefix)]
        paired = self._take_pair() if suffixes == (".npy",) else []
        self.classes: list[str] | None = None
        labels: Sequence[int] | None = None
        said = ""
        if num_classes and paired:
            labels = list(each(self._read_label, paired, "reading labels"))
        elif num_classes and self.prefix + LABELS in self.storage.names:
            labels, said = self._listed_labels(), f" in {LABELS}"
        elif num_classes:
            labels = self._labels_of_folders(num_classes)
        if labels is None and num_classes not in (0, FOUND, 1):
            raise self.refuse(LABELS, f"gives no classes: dataset.classes = {num_classes}")
        highest = num_classes if num_classes > 0 else MOST_CLASSES
        for name, label in zip(self.names, labels or (), strict=bool(labels)):
            if not 0 <= label < highest:
                raise self.refuse(name, f"has label {label}{said}: labels do not fit {highest} classes")
        self.labels = np.zeros(len(self.names), np.int32) if labels is None else np.array(labels, np.int32)
        found = 0 if labels is None else int(self.labels.max()) + 1
        self.num_classes = found if num_classes == FOUND else num_classes

    def __repr__(self) -> str:
        return f"{len(self.names):,} files in {shown(str(self.storage.path))}"

    def read(self, name: str) -> bytes:
        """The file of that name.

        Raises:
          BadExample: if it cannot be read.
        """
        return self.storage.read(self.prefix + name)

    @property
    def files(self) -> list[str]:
        """The names of all files of the split, examples or not."""
        return [name.removeprefix(self.prefix) for name in self.storage.names if name.startswith(self.prefix)]

    def refuse(self, name: str, problem: object) -> BadExample:
        """An error about one file."""
        return self.storage.refuse_file(self.prefix + name, problem)

    def place_of(self, name: str) -> str:
        """Where a file lies, for a message."""
        return self.storage.place_of(self.prefix + name)

    def keep(self, kept: Sequence[int]) -> None:
        """Leaves out all examples but those of these numbers."""
        self.names, self.labels = [self.names[index] for index in kept], self.labels[list(kept)]

    def identity(self) -> dict[str, Any]:
        """See `sources.identity`."""
        sizes = list(each(self._size, self.names, "looking at files"))
        return {
            "examples": len(self.names),
            "names": fingerprint(*(name.encode(errors="surrogateescape") for name in self.names)),
            "sizes": fingerprint(np.asarray(sizes, "<i8").tobytes()),
            "labels": fingerprint(self.labels.astype("<i8").tobytes()),
        }

    def _size(self, name: str) -> int:
        try:
            return self.storage.size(self.prefix + name)
        except BadExample as error:
            raise self.refuse(name, error) from error

    ################################################################### splits

    def _folder_of(self, split: str, examples: Sequence[str]) -> tuple[str, set[str]]:
        """(what the names of the split's files begin with, splits there are).

        A folder that holds everything else is looked into: programs that make zips put one around the files.
        """
        prefix, inside = "", False
        splits: set[str] = set()
        while True:
            below = [name[len(prefix) :].split("/") for name in examples if name.startswith(prefix)]
            tops = {parts[0] if len(parts) > 1 else "" for parts in below}
            if not inside and split in tops:
                others = sorted(shown(top) or "files" for top in tops - set(SPLITS))
                if others and split == "train":  # which no one need have chosen
                    raise self.storage.refuse(
                        f"beside the folder 'train' lie {', '.join(others[:3])}{', ...' if others[3:] else ''}: if all "
                        "are classes, move all into a folder 'train'; if not, move the others elsewhere"
                    )
                inside, splits, top = True, tops & {*SPLITS, split}, split
            elif not inside and tops <= set(SPLITS):  # another was chosen
                raise self._no_split(split, f"there are {', '.join(sorted(tops))}")
            elif len(tops) == 1 and "" not in tops and prefix + LABELS not in self.storage.names:
                (top,) = tops
            elif not inside and split != "train":
                raise self._no_split(split, "the whole folder or zip is the split train")
            else:
                return prefix, splits
            prefix += f"{top}/"

    def _no_split(self, split: str, instead: str) -> UserError:
        path = shown(str(self.storage.path))
        return UserError(f"dataset.split = {split!r}: there is no folder {split} in {path}; {instead}")

    ################################################################## classes

    def _take_pair(self) -> list[str]:
        """The files of the labels, if this is DiT's layout; then only the features are examples, by their numbers."""
        tops = {name.partition("/")[0] for name in self.names}
        pairs = [(top, top[:-8] + "labels") for top in sorted(tops) if top.endswith("_features")]
        pairs = [pair for pair in pairs if pair[1] in tops]
        if not pairs:
            return []
        if len(tops) != 2:
            raise self.storage.refuse(f"beside {' and '.join(pairs[0])} lie others: {', '.join(sorted(tops)[:5])}")
        features, labels = (
            {name.removeprefix(f"{top}/"): name for name in self.names if name.startswith(f"{top}/")}
            for top in pairs[0]
        )
        odd = [name for name in features if not (name[:-4].isascii() and name[:-4].isdecimal())]
        if odd:
            raise self.refuse(features[odd[0]], "is not named by a number, as 0.npy")
        lonely = sorted(set(features) ^ set(labels), key=lambda name: (len(name), name))
        if lonely:
            raise self.storage.refuse(
                f"{len(features):,} files in {pairs[0][0]} and {len(labels):,} in {pairs[0][1]}: only one of them has "
                f"{shown(lonely[0])}"
            )
        order = sorted(features, key=lambda name: int(name[:-4]))
        self.names = [features[name] for name in order]
        return [labels[name] for name in order]

    def _read_label(self, name: str) -> int:
        try:
            return latents.decode_label(self.read(name))
        except BadExample as error:
            raise self.refuse(name, error) from error

    def _listed_labels(self) -> list[int] | None:
        """The labels of dataset.json; None where it says that there are none."""
        try:
            listed = json.loads(self.read(LABELS))["labels"]
        except (BadExample, ValueError, KeyError, TypeError, RecursionError) as error:
            raise self.refuse(
                LABELS, f'is no JSON of {{"labels": [[name, label], ...]}}: {first_line(error)}'
            ) from error
        if listed is None:
            return None
        known: dict[str, int] = {}
        for entry in listed if isinstance(listed, list) else [listed]:
            match entry:
                case [str() as name, label]:
                    if type(label) is not int:  # True is one to Python
                        raise self.refuse(LABELS, f"gives {shown(name)} the label {label!r:.100}: must be an integer")
                    if name in known:
                        raise self.refuse(LABELS, f"names {shown(name)} twice")
                    known[name] = label
                case _:
                    raise self.refuse(LABELS, f"holds {entry!r:.100}: must be [name, label]")
        missing = [name for name in self.names if name not in known]
        if missing:
            raise self.refuse(LABELS, f"has no label for {shown(missing[0])} and {len(missing) - 1} more")
        return [known[name] for name in self.names]

    def _labels_of_folders(self, num_classes: int) -> list[int] | None:
        """The number of the top folder of each example; None where there are no folders, and need be none."""
        tops = [name.split("/")[0] if "/" in name else "" for name in self.names]
        folders = sorted(set(tops) - {""})
        if not folders and num_classes in (FOUND, 1):
            return None
        if "" in tops or num_classes not in (FOUND, len(folders)):
            loose = f" and {tops.count(''):,} files beside them" if "" in tops else ""
            wanted = "" if num_classes == FOUND else f" instead of one for each of the {num_classes} classes"
            raise self.storage.refuse(f"there is no {LABELS}, and {len(folders)} top folders{loose}{wanted}")
        if all(folder.isascii() and folder.isdecimal() for folder in folders):
            folders.sort(key=lambda folder: (int(folder), folder))
        number = {folder: index for index, folder in enumerate(folders)}
        self.classes = folders
        return [number[top] for top in tops]
