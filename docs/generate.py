"""Writes what is derived from teleport_eks/settings.py: Pulumi.yaml's keys, the reference and the editors' schema.

``python -m docs.generate`` (``make docs``); a test fails when one of them is behind.
"""

import json
from pathlib import Path
from typing import Any

from teleport_eks.access import Bot, Team
from teleport_eks.errors import NAMESPACE, as_yaml
from teleport_eks.settings import SECRETS, Settings

ROOT = Path(__file__).parent.parent
KINDS = {"array": "list", "boolean": "true or false", "integer": "whole number", "object": "map", "string": "text"}


def main() -> None:
    for name, text in generated().items():
        (ROOT / name).write_text(text)


def generated() -> dict[str, str]:
    """Every generated file: its path in the project, and its text."""
    head, marker, _ = (ROOT / "Pulumi.yaml").read_text().partition("\nconfig:\n")
    return {
        "Pulumi.yaml": head + marker + "".join(map(_project_key, _keys())),
        "docs/configuration.md": _reference(),
        "docs/stack.schema.json": json.dumps(_schema(), indent=2) + "\n",
    }


def _keys() -> list[dict[str, Any]]:
    """Name, kind, default and description of each key, in the order of the settings."""
    properties = Settings.model_json_schema()["properties"]
    keys = []
    for field in Settings.model_fields.values():
        schema = properties[field.alias]
        kind = next(s["type"] for s in [schema, *schema.get("anyOf", [])] if "type" in s)
        items = "string" if schema.get("items", {}).get("type") == "string" else "object"
        default = list(field.default) if kind == "array" else "" if field.is_required() else field.default
        keys.append(
            {
                "name": field.alias,
                "kind": kind,
                "items": items,
                "default": "" if default is None else default,
                "required": field.is_required(),
                "description": field.description,
                "example": (field.examples or [""])[0],
            }
        )
    return keys


def _project_key(key: dict[str, Any]) -> str:
    items = f"    items:\n      type: {key['items']}\n" if key["kind"] == "array" else ""
    secret = " A secret: `pulumi config set --secret`." if key["name"] in SECRETS else ""
    default, description = json.dumps(key["default"]), json.dumps(key["description"] + secret)
    return f"  {key['name']}:\n    type: {key['kind']}\n{items}    default: {default}\n    description: {description}\n"


def _reference() -> str:
    lines = [
        "# Configuration",
        "",
        f"Keys of a stack's file, `Pulumi.<stack>.yaml`, each as `{NAMESPACE}:<key>` under `config:`. Generated from",
        "`teleport_eks/settings.py` by `make docs`. For completion in an editor, begin the file with",
        "`# yaml-language-server: $schema=docs/stack.schema.json`.",
        "",
        "| key | | default | |",
        "|---|---|---|---|",
    ]
    for key in _keys():
        default = "required" if key["required"] else f"`{json.dumps(key['default'])}`" if key["default"] != "" else ""
        kind = KINDS[key["kind"]] + (", a secret" if key["name"] in SECRETS else "")
        lines.append(f"| `{key['name']}` | {kind} | {default} | {key['description']} |")
    for title, name, item in (("A team", "teams", Team), ("A bot", "bots", Bot)):
        example = next(key["example"] for key in _keys() if key["name"] == name)
        lines += ["", f"## {title}", "", "```yaml", as_yaml(f"{NAMESPACE}:{name}", example), "```", "", "| key | |"]
        lines += ["|---|---|"]
        lines += [f"| `{field.alias}` | {field.description} |" for field in item.model_fields.values()]
    return "\n".join(lines) + "\n"


def _schema() -> dict[str, Any]:
    """The JSON schema of a stack's file. Pulumi itself writes true, false and numbers as text, and secrets as
    ``secure``. An empty text is a key that is not set.
    """
    settings = Settings.model_json_schema(ref_template="#/$defs/{model}")
    secure = {"type": "object", "properties": {"secure": {"type": "string"}}, "required": ["secure"]}
    keys = {}
    for name, schema in settings["properties"].items():
        kinds = {part.get("type") for part in (schema, *schema.get("anyOf", []))}
        also = secure if name in SECRETS else {"const": ""} if "string" in kinds else {"type": "string"}
        annotations = {key: schema.pop(key) for key in ("description", "default", "examples") if key in schema}
        keys[f"{NAMESPACE}:{name}"] = {**annotations, "anyOf": [schema, also]}
    # Other keys, such as aws:region, are other programs' to know.
    known = {"anyOf": [{"enum": list(keys)}, {"not": {"pattern": f"^{NAMESPACE}:"}}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"config": {"type": "object", "properties": keys, "propertyNames": known}},
        "$defs": settings["$defs"],
    }


if __name__ == "__main__":
    main()
