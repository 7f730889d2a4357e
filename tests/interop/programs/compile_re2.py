"""Compiles a JSON array of patterns with RE2, and writes the refusals and the number of compiled patterns."""

import json
import sys

import re2  # type: ignore[import-not-found]

refusals = []
patterns = json.load(sys.stdin)
for pattern in patterns:
    try:
        re2.compile(pattern)
    except re2.error as error:
        refusals.append(f"{pattern}: {error}")
json.dump({"refusals": refusals, "compiled": len(patterns) - len(refusals)}, sys.stdout)
