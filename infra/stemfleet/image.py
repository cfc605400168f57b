"""The image of a fleet that builds its own, as a resource of pulumi-command's.

A plain fleet does not import this module: pulumi-command is in an extra of its own, and its
provider is fetched by the engine.
"""

from __future__ import annotations

import json
from pathlib import Path

import pulumi

from stemfleet.build_image import ARGUMENTS, BUILDERS, TAGGED, find_builder
from stemfleet.config import BuiltImage
from stemfleet.sources import digest

COMMAND = ".venv/bin/python -m stemfleet.build_image"
"""Run where the program is. Nothing in it or beside it differs from one person's machine to the
next: what differs would build again."""

_TAG_DIGITS = 12


def build_image(
    config: BuiltImage, project: Path, opts: pulumi.ResourceOptions
) -> pulumi.Output[str]:
    """Build and push the image whenever what it is made of has changed.

    Returns:
        It as ``repository@sha256:…``; not known in the preview of a build.

    Raises:
        pulumi.RunError: what is needed for it is not here.
    """
    try:
        from pulumi_command import local
    except ImportError:
        raise pulumi.RunError(
            "`image.build` needs pulumi-command: `pip install 'stemfleet[build]'` (in a checkout: "
            "`uv sync --inexact --extra build`). Or build the image yourself, and name it as the "
            "groups' `image`"
        ) from None
    if find_builder() is None:
        raise pulumi.RunError(
            f"`image.build` needs one of {', '.join(BUILDERS)}, and none is on PATH. Install one, "
            "or name an image that is built already as the groups' `image`"
        )
    arguments = {"PRESETS": " ".join(config.presets), "LICENCE": config.licence}
    try:
        content = digest(project, arguments)
    except FileNotFoundError as error:
        raise pulumi.RunError(
            f"`image.build` needs a checkout of stemfleet around Pulumi.yaml: {error}"
        ) from None
    command = local.Command(
        "image",
        create=COMMAND,
        environment={
            TAGGED: f"{config.repository}:{content[:_TAG_DIGITS]}",
            ARGUMENTS: json.dumps(arguments),
        },
        triggers=[config.repository, content],
        opts=opts,
    )
    return command.stdout.apply(str.strip)
