"""What a stack with `image.build` runs, with a real builder and a registry that it pushes to."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stemfleet.build_image import ARGUMENTS, TAGGED

from tests.image.building import BASE, Builder
from tests.image.registry import registry

pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]

DOCKERFILE = f"FROM {BASE}\nARG PRESETS\nCOPY greeting /greeting\nLABEL presets=$PRESETS\n"


def test_buildah_builds_and_pushes_and_the_digest_is_the_manifests(
    builder: Builder, tmp_path: Path
) -> None:
    builder.make_base()
    for folder in ("image", "infra", "bin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "image/Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "greeting").write_text("hello")
    (tmp_path / "bin/buildah").symlink_to("/usr/bin/buildah")
    with registry() as pushed_to:
        insecure = tmp_path / "registries.conf"
        insecure.write_text(f'[[registry]]\nlocation = "{pushed_to.address}"\ninsecure = true\n')
        told = {
            **builder.environment,
            "PATH": f"{tmp_path / 'bin'}:/usr/sbin:/sbin",
            "CONTAINERS_REGISTRIES_CONF": str(insecure),
            TAGGED: f"{pushed_to.address}/you/stemserve:0a1b2c",
            ARGUMENTS: json.dumps({"PRESETS": "a b"}),
        }
        done = subprocess.run(
            [sys.executable, "-m", "stemfleet.build_image"],
            cwd=tmp_path / "infra",
            env=os.environ | told,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        manifest = pushed_to.manifests["you/stemserve", "0a1b2c"]
        digest = hashlib.sha256(manifest).hexdigest()
        assert done.stdout == f"{pushed_to.address}/you/stemserve@sha256:{digest}\n"
        configuration = pushed_to.blobs[json.loads(manifest)["config"]["digest"]]
        assert json.loads(configuration)["config"]["Labels"]["presets"] == "a b"
