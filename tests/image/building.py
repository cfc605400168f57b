"""Builds the image without a Docker engine: buildah builds, debootstrap makes what it builds upon.

A Debian of debootstrap's takes the place of the base image, under its name. It trusts what this
machine trusts and nothing more, so that the build reaches the registries that this machine reaches.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/debian:bookworm-slim"
DEBIAN = "http://deb.debian.org/debian"
REGISTRY = "service/stemserve/weights/registry.toml"
TRUSTED = Path("/usr/local/share/ca-certificates")
_SECONDS = 3600


@dataclass(frozen=True)
class Layer:
    """One layer of an image."""

    digest: str
    made_by: str
    bytes: int


class Builder:
    """buildah, with a store of its own under ``place``."""

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        known = Path("/proc/filesystems").read_text(encoding="utf-8").split()
        driver = os.environ.get("STORAGE_DRIVER", "overlay" if "overlay" in known else "vfs")
        configuration = place / "storage.conf"
        configuration.write_text(
            f'[storage]\ndriver = "{driver}"\n'
            f'graphroot = "{place / "root"}"\nrunroot = "{place / "run"}"\n'
        )
        self.place = place
        self.environment = {
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_STORAGE_CONF": str(configuration),
            "STORAGE_DRIVER": driver,
            "TMPDIR": str(place),
        }
        """What a buildah that works on this store is given."""

    def __call__(self, *words: str) -> str:
        """What a buildah command prints."""
        done = subprocess.run(
            ["buildah", *words],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        assert done.returncode == 0, f"buildah {' '.join(words)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def has(self, image: str) -> bool:
        """Whether there is an image of that name."""
        return any(image in (row["names"] or ()) for row in json.loads(self("images", "--json")))

    def make_base(self) -> None:
        """A Debian under the base image's name, unless there is one."""
        if self.has(BASE):
            return
        tree = self.place / "debian"
        mirror = os.environ.get("DEBIAN_MIRROR", DEBIAN)
        command = ["debootstrap", "--variant=minbase", "bookworm", str(tree), mirror]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        for left in ("var/lib/apt/lists", "var/cache/apt/archives", "usr/share/doc"):
            shutil.rmtree(tree / left)
            (tree / left).mkdir()
        trusted = tree / TRUSTED.relative_to("/")
        trusted.mkdir(parents=True, exist_ok=True)
        for certificate in TRUSTED.glob("*.crt"):
            shutil.copy(certificate, trusted)
        (tree / "etc/uv").mkdir()
        (tree / "etc/uv/uv.toml").write_text("system-certs = true\n")
        (tree / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
        container = self("from", "scratch")
        self("add", "--quiet", container, str(tree), "/")
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self("config", "--cmd", "bash", "--env", f"PATH={path}", container)
        self("commit", "--quiet", "--rm", container, BASE)
        shutil.rmtree(tree)

    def build(self, context: Path, tag: str, **arguments: str) -> None:
        """Build the Dockerfile with these build arguments."""
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        how = ["--pull-never", "--layers", "--format=docker", f"--tag={tag}"]
        self("bud", *how, *given, f"--file={context / 'image/Dockerfile'}", str(context))

    def configuration(self, image: str) -> dict[str, Any]:
        """What a Docker engine would read of it: User, Env, Entrypoint, Cmd and the rest."""
        inspected: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))
        configuration: dict[str, Any] = inspected["Docker"]["config"]
        return configuration

    def layers(self, image: str) -> list[Layer]:
        """Its layers, the base first."""
        inspected = json.loads(self("inspect", "--type", "image", image))["OCIv1"]
        stored = next((self.place / "root").glob("*-layers/layers.json"))
        rows = json.loads(stored.read_text(encoding="utf-8"))
        sizes = {row["diff-digest"]: row["diff-size"] for row in rows if "diff-digest" in row}
        made = [row["created_by"] for row in inspected["history"] if not row.get("empty_layer")]
        digests = inspected["rootfs"]["diff_ids"]
        return [Layer(digest, by, sizes[digest]) for by, digest in zip(made, digests, strict=True)]

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """Its file system."""
        container = self("from", "--pull-never", image)
        try:
            yield Path(self("mount", container))
        finally:
            self("rm", container)

    def remove(self) -> None:
        """Everything that was built, and what lies under it."""
        self("rm", "--all")
        self("rmi", "--all", "--force")
        shutil.rmtree(self.place, ignore_errors=True)


def copy_context(place: Path) -> None:
    """The checkout's files as git knows them, changed or new ones among them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        source, target = ROOT / name, place / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def publish(made: Path, context: Path) -> dict[str, bytes]:
    """Write a registry into ``context`` that has the files in ``made`` under the published names.

    Returns the content of each by that name, as a mirror serves it.
    """
    facts = tomllib.loads((ROOT / REGISTRY).read_text(encoding="utf-8"))
    files = {}
    lines = []
    for name, fields in facts["licences"].items():
        lines += [f"[licences.{name}]", *(f"{key} = {json.dumps(v)}" for key, v in fields.items())]
    for name, fields in facts["weights"].items():
        stem, suffix = Path(name).stem.partition("-")[0], Path(name).suffix
        content = next(made.glob(f"{stem}-*{suffix}")).read_bytes()
        files[name] = content
        known = {
            **{key: fields[key] for key in ("model", "licence")},
            "url": f"https://weights.invalid/{name}",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "digest_note": "made for a test",
        }
        lines += [f'[weights."{name}"]', *(f"{key} = {json.dumps(v)}" for key, v in known.items())]
    (context / REGISTRY).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files
