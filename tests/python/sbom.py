"""Checks the bill of materials of the release binary: it is CycloneDX by its schema, and names every
crate that cargo builds into the binary, in its version and with its licence.

It may name more: what optional features of dependencies would bring, which cargo's metadata, where
it comes from, does not tell from what is built.

sbom.py FILE
"""

import json
import subprocess
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

TREE = "cargo tree --locked --package orgd --edges normal --prefix none --format {p}"


def main(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    bill = json.loads(text)
    version = SchemaVersion.from_version(bill["specVersion"])
    error = JsonStrictValidator(version).validate_str(text)
    if error is not None:
        sys.exit(f"{path} is not CycloneDX {bill['specVersion']}: {error}")

    components = [bill["metadata"]["component"], *bill["components"]]
    named = {(one["name"], one["version"]) for one in components}
    tree = subprocess.run(TREE.split(), check=True, capture_output=True, text=True).stdout
    # A line is `name vVERSION`, and more after a blank for some.
    linked = {(line.split()[0], line.split()[1].removeprefix("v")) for line in tree.splitlines()}
    missing = sorted(linked - named)
    if missing:
        sys.exit(f"{path} lacks {missing}")
    unlicensed = sorted(one["name"] for one in bill["components"] if not one.get("licenses"))
    if unlicensed:
        sys.exit(f"{path} names no licence of {unlicensed}")
    print(
        f"{path}: CycloneDX {bill['specVersion']}, all {len(linked)} crates of the binary and"
        f" {len(named - linked)} of features that are off, each with its licence"
    )


if __name__ == "__main__":
    main(sys.argv[1])
