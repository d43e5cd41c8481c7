"""Makes the upstream Fashion-MNIST archives from Debian's package, for machines that cannot fetch them.

    apt-get install dataset-fashion-mnist
    python launch/fashion_mnist_from_debian.py            # into TFDS's default folder
    python launch/fashion_mnist_from_debian.py DATA_DIR   # for --config.dataset.data_dir=DATA_DIR

Debian recompresses nothing: only the gzip headers lack the original name and time. With them restored the files are
upstream's bit for bit, and TFDS accepts them with its checksums.
"""

import sys
from pathlib import Path

SOURCE = Path("/usr/share/datasets/fashion-mnist")
MODIFIED = {  # time stamps in upstream's gzip headers, in seconds since 1970
    "train-images-idx3-ubyte": 1504176606,
    "train-labels-idx1-ubyte": 1504176606,
    "t10k-images-idx3-ubyte": 1504176627,
    "t10k-labels-idx1-ubyte": 1504176627,
}


def restore_header(packed: bytes, name: str, modified: int) -> bytes:
    """A gzip file without name and time -> the same with both (RFC 1952, section 2.3)."""
    if packed[:4] != b"\x1f\x8b\x08\x00":
        raise ValueError(f"{name}.gz does not start with the plain gzip header that Debian's package has")
    return b"\x1f\x8b\x08\x08" + modified.to_bytes(4, "little") + b"\x00\x03" + name.encode() + b"\x00" + packed[10:]


def main() -> None:
    data_dir = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.home() / "tensorflow_datasets"
    if not SOURCE.exists():
        sys.exit(f"error: {SOURCE} is not there: apt-get install dataset-fashion-mnist")
    target = data_dir / "downloads" / "manual"
    target.mkdir(parents=True, exist_ok=True)
    for name, modified in MODIFIED.items():
        packed = (SOURCE / f"{name}.gz").read_bytes()
        (target / f"{name}.gz").write_bytes(restore_header(packed, name, modified))
        print(f"wrote {target / name}.gz")


if __name__ == "__main__":
    main()
