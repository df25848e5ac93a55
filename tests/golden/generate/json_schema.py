"""Golden of the reward `json-schema`: `tests/golden/rewards/json_schema.json`.

Oracle: the official JSON Schema Test Suite (MIT), draft 2020-12, as it lies in the source archive of PyPI's
`jsonschema` 4.26.0. Left out are cases that need another document, an embedded `$id`, a vocabulary or look-around:
the reward has no network and says so when it meets them.
Command: pip download --no-deps --no-binary jsonschema jsonschema==4.26.0, unpack, then
    python tests/golden/generate/json_schema.py jsonschema-4.26.0/json
"""

import json
import sys
from pathlib import Path

SUITE = Path(sys.argv[1]) / "tests" / "draft2020-12"
TARGET = Path(__file__).resolve().parent.parent / "rewards" / "json_schema.json"
# Whole files about what is left out.
OTHERS = {"refRemote", "vocabulary", "anchor"}


def outside(schema, top=True):
    """Whether the schema needs what a single document without a network can't give."""
    if isinstance(schema, list):
        return any(outside(it, False) for it in schema)
    if not isinstance(schema, dict):
        return False
    for key, value in schema.items():
        if key == "$id" and not top:
            return True
        if key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
            return True
        if key == "pattern" and isinstance(value, str) and "(?" in value:
            return True
        if outside(value, False):
            return True
    return False


cases, left_out = [], 0
for path in sorted(SUITE.glob("*.json")):
    for case in json.loads(path.read_text()):
        if path.stem in OTHERS or outside(case["schema"]):
            left_out += 1
            continue
        tests = [{"description": it["description"], "data": it["data"], "valid": it["valid"]} for it in case["tests"]]
        description = f"{path.stem}: {case['description']}"
        cases.append({"description": description, "schema": case["schema"], "tests": tests})

lines = ",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in cases)
TARGET.parent.mkdir(exist_ok=True)
licence = json.dumps((Path(sys.argv[1]) / "LICENSE").read_text())
TARGET.write_text(
    '{"oracle":"JSON Schema Test Suite, draft 2020-12","licence":' + licence + ',"cases":[\n' + lines + "\n]}\n"
)
print(len(cases), "cases,", sum(len(it["tests"]) for it in cases), "tests;", left_out, "cases left out")
