"""What a disk that is full, read-only or gone makes libraries raise."""

import errno
import os
import pathlib

OF_WRITING = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS)  # reading raises none of these
STORAGE = (
    *OF_WRITING,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOENT,
    errno.ESTALE,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
)


def storage_error(error: BaseException, folder: str) -> str:
    """What kept a library from writing to a folder, in a few words; "" for an error of another kind or place."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in STORAGE:
            if seen.filename is None:  # which file is not known: it may be one of the data that was read
                if seen.errno in OF_WRITING:
                    return os.strerror(seen.errno)
            elif pathlib.Path(os.path.abspath(seen.filename)).is_relative_to(os.path.abspath(folder)):
                return f"{os.path.basename(seen.filename)}: {os.strerror(seen.errno)}"
        elif os.path.abspath(folder) in str(seen):  # TensorStore's own words hold the path and the system's
            for number in STORAGE:
                if os.strerror(number).casefold() in str(seen).casefold():
                    return os.strerror(number)
        seen = seen.__cause__ or seen.__context__
    return ""
