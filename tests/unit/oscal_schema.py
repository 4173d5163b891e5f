"""The part of OSCAL's assessment results that we write, as a JSON schema of our own, closed against other keys.

Written from NIST's metaschema 1.2.1 (oscal_assessment-results, oscal_assessment-common, oscal_metadata): names, what is
required, patterns of uuid, token and time, and that no list is empty.
"""

from __future__ import annotations

from typing import Any

UUID = {
    "type": "string",
    "pattern": "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[45][0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$",
}
TOKEN = {"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9.\\-_]*$"}
TIME = {"type": "string", "pattern": "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[+-]\\d\\d:\\d\\d)$"}
STRING = {"type": "string", "pattern": "^\\S(.*\\S)?$"}  # OSCAL's string: no space at its ends, one line
TEXT = {"type": "string", "minLength": 1}  # markup
ADDRESS = {"type": "string", "format": "uri-reference"}


def some(item: Any) -> dict[str, Any]:
    """A list that is not empty."""
    return {"type": "array", "minItems": 1, "items": item}


def group(required: str, **properties: Any) -> dict[str, Any]:
    """An object with these keys and no others; `_` stands for `-`."""
    named = {key.replace("_", "-"): value for key, value in properties.items()}
    return {"type": "object", "properties": named, "required": required.split(), "additionalProperties": False}


SELECTION = {
    "oneOf": [
        group("include-all", include_all={"type": "object", "additionalProperties": False}),
        group("include-controls", include_controls=some(group("control-id", control_id=TOKEN))),
    ]
}
STATUS = group("state", state={"enum": ["satisfied", "not-satisfied"]})
FINDING = group(
    "uuid title description target",
    uuid=UUID,
    title=TEXT,
    description=TEXT,
    props=some(group("name value", name=TOKEN, ns=ADDRESS, value=STRING)),
    target=group(
        "type target-id status", type={"enum": ["statement-id", "objective-id"]}, target_id=TOKEN, status=STATUS
    ),
    related_observations=some(group("observation-uuid", observation_uuid=UUID)),
)
OBSERVATION = group(
    "uuid description methods collected",
    uuid=UUID,
    title=TEXT,
    description=TEXT,
    methods=some({"enum": ["EXAMINE", "INTERVIEW", "TEST", "UNKNOWN"]}),
    subjects=some(group("subject-uuid type", subject_uuid=UUID, type=TOKEN)),
    relevant_evidence=some(group("description", href=ADDRESS, description=TEXT)),
    collected=TIME,
    remarks=TEXT,
)
RESULT = group(
    "uuid title description start reviewed-controls",
    uuid=UUID,
    title=TEXT,
    description=TEXT,
    start=TIME,
    end=TIME,
    local_definitions=group("", inventory_items=some(group("uuid description", uuid=UUID, description=TEXT))),
    reviewed_controls=group("control-selections", control_selections=some(SELECTION)),
    observations=some(OBSERVATION),
    findings=some(FINDING),
)
METADATA = group(
    "title last-modified version oscal-version", title=TEXT, last_modified=TIME, version=STRING, oscal_version=STRING
)
SCHEMA = group(
    "assessment-results",
    assessment_results=group(
        "uuid metadata import-ap results",
        uuid=UUID,
        metadata=METADATA,
        import_ap=group("href", href=ADDRESS),
        results=some(RESULT),
    ),
)
