"""A package index in a folder, and the environment that makes pip ask nothing else."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

FAKE_TREE = Path(__file__).parent / "fake_llama_tree"

_PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
_BACKEND = """
import os
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    name = "NAME-VERSION.dist-info"
    os.makedirs(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: NAME\\nVersion: VERSION\\n")
    return name
def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise SystemExit("a source package must not be built to be downloaded")
"""


class PackageIndex:
    """``add_source`` and ``add_wheel`` publish; ``environment`` is for pip."""

    def __init__(self, root: Path) -> None:
        self._simple = root / "simple"
        self._simple.mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": self._simple.as_uri(),
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "PIP_NO_INDEX": "",
        }

    def add_source(self, name: str, version: str, inside: str, tree: Path = FAKE_TREE) -> Path:
        """A source package holding ``tree`` as its folder ``inside``, besides files of its own."""
        stem = f"{name.replace('-', '_')}-{version}"
        path = self._folder(name) / f"{stem}.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            backend = _BACKEND.replace("NAME", name.replace("-", "_")).replace("VERSION", version)
            for member, text in (("PKG-INFO", info), ("pyproject.toml", _PYPROJECT), ("backend.py", backend)):
                _add_text(tar, f"{stem}/{member}", text)
            tar.add(tree, f"{stem}/{inside}")
        self._list(path.parent)
        return path

    def add_wheel(
        self, name: str, version: str, files: dict[str, str], requires: tuple[str, ...] = ()
    ) -> Path:
        """A wheel of these files, all of them executable, that asks for ``requires``."""
        path = self._folder(name) / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        files = files | {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            + "".join(f"Requires-Dist: {line}\n" for line in requires),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
        }
        with zipfile.ZipFile(path, "w") as wheel:
            for member, text in files.items():
                entry = zipfile.ZipInfo(member)
                entry.external_attr = 0o100755 << 16
                wheel.writestr(entry, text)
        self._list(path.parent)
        return path

    def _folder(self, name: str) -> Path:
        folder = self._simple / name
        folder.mkdir(exist_ok=True)
        return folder

    def _list(self, folder: Path) -> None:
        files = sorted(path.name for path in folder.iterdir() if path.name != "index.html")
        links = "".join(f'<a href="{name}">{name}</a>' for name in files)
        (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(text.encode())
    tar.addfile(member, io.BytesIO(text.encode()))
