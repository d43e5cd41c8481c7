"""If these fail, a full disk ends in a trace, or a fault of the program is taken for one."""

import errno

import pytest

from diffcurr.training.storage import storage_error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EROFS, "Read-only file system", "/runs/a/metrics.jsonl"), "metrics.jsonl: Read-only file sys"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "/runs/a/samples/1.png"),
            "1.png: No such file",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/1.png"), ""),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/runs/ab/1.png"), ""),
        (OSError(errno.EIO, "Input/output error"), ""),  # which may be of reading the data
        (ValueError("RESOURCE_EXHAUSTED: /runs/a/checkpoints/3: No space left on device [os_error_code]"), "No space"),
        (ValueError("RESOURCE_EXHAUSTED: /data/3: No space left on device"), ""),
        (ValueError("No such file or directory"), ""),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), ""),
        (IsADirectoryError("Cannot overwrite: /runs/a/curriculum.png is a directory"), "Is a directory"),
        (KeyError("loss"), ""),
    ],
    ids=repr,
)
def test_what_kept_it_from_writing(error: Exception, words: str) -> None:
    assert storage_error(error, "/runs/a").startswith(words) and bool(storage_error(error, "/runs/a")) == bool(words)
    wrapped = RuntimeError("the save failed")
    wrapped.__cause__ = error
    assert bool(storage_error(wrapped, "/runs/a")) == bool(words)
