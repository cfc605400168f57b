"""The contract for people to read: the OpenAPI document as Markdown, `service/API.md`."""

from __future__ import annotations

import json

from stemserve.web.openapi import COMMON, Document

_METHODS = ("get", "put", "post", "delete")


def markdown(document: Document) -> str:
    """The document as a page: each call with its parameters, bodies, answers and errors."""
    lines = [
        "# The worker's HTTP API",
        "",
        "Made from the contract by `stemserve openapi --markdown`; do not edit it.",
        "",
        document["info"]["description"].strip(),
        "",
        document["components"]["securitySchemes"]["HTTPBearer"]["description"],
        "",
        f"Any call may end with {_listed(COMMON)}; what else it may end with stands there.",
    ]
    for tag in document["tags"]:
        lines += ["", f"## {tag['name'].capitalize()}", "", tag["description"]]
        for path, operations in document["paths"].items():
            for method in _METHODS:
                if tag["name"] in operations.get(method, {}).get("tags", []):
                    lines += _call(document, f"{method.upper()} {path}", operations[method])
    lines += ["", "## Bodies", "", "What has no default must be there."]
    for name, schema in document["components"]["schemas"].items():
        if "properties" in schema:
            lines += _body(document, name, schema)
        elif "enum" in schema:
            values = ", ".join(f"`{value}`" for value in schema["enum"])
            lines += ["", f"### {name}", "", f"{_says(schema)} One of {values}."]
    return "\n".join(lines) + "\n"


def _call(document: Document, title: str, operation: Document) -> list[str]:
    lines = ["", f"### `{title}`", "", _says(operation)]
    rows = [_parameter(parameter) for parameter in operation.get("parameters", [])]
    asked = operation.get("requestBody", {}).get("content", {})
    rows += [f"- body: {_named(kind, media)}" for kind, media in asked.items()]
    errors = set()
    for status, answer in operation["responses"].items():
        for kind, media in answer.get("content", {}).items():
            if kind == "application/problem+json":
                errors |= {f"{status} {word}" for word in media["examples"]}
            elif not kind.startswith("audio/") or kind == "audio/wav":
                rows.append(f"- {status}: {_named(kind, media)}")
    if others := errors - COMMON:
        rows.append(f"- errors: {_listed(others)}")
    example = _example(document, asked.get("application/json", {}).get("schema", {}))
    return [*lines, "", *rows, *example]


def _parameter(of: Document) -> str:
    row = f"- `{of['name']}` ({of['in']}): {of['description']}"
    if "default" in of["schema"]:
        row += f"; default `{json.dumps(of['schema']['default'])}`"
    return row


def _named(kind: str, media: Document) -> str:
    name = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
    if name:
        return f"[{name}](#{name.lower()})"
    return "the file" if kind.startswith("audio/") else kind


def _listed(errors: set[str]) -> str:
    return ", ".join(f"{error[:3]} `{error[4:]}`" for error in sorted(errors))


def _body(document: Document, name: str, schema: Document) -> list[str]:
    lines = ["", f"### {name}", "", _says(schema), ""]
    lines += ["| field | type | default | |", "| --- | --- | --- | --- |"]
    for field, of in schema["properties"].items():
        needed = field in schema.get("required", [])
        default = "" if needed else f"`{json.dumps(of.get('default'))}`"
        says = str(of.get("description", "")).replace("|", "\\|")
        lines.append(f"| `{field}` | {_type(of)} | {default} | {says} |")
    return [*lines, *_example(document, {"$ref": name})]


def _says(of: Document) -> str:
    return str(of.get("description", "")).replace("``", "`")


def _type(of: Document) -> str:
    if "$ref" in of:
        name = of["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in of:
        return " or ".join(_type(one) for one in of["anyOf"])
    if "allOf" in of:
        return _type(of["allOf"][0])
    if of.get("type") == "array":
        return f"list of {_type(of['items'])}"
    return str(of["const"] if "const" in of else of.get("format", of.get("type", "any")))


def _example(document: Document, schema: Document) -> list[str]:
    name = schema.get("$ref", "").rpartition("/")[2]
    examples = document["components"]["schemas"].get(name, {}).get("examples", [])
    return ["", "```json", json.dumps(examples[0]), "```"] if examples else []
