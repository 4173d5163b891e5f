"""The page docs/auditor/controls.md, made from the catalogue: `python -m mastodon_gov.audit.document`."""

from __future__ import annotations

from collections.abc import Iterable

from mastodon_gov.audit.catalogue import Control, load
from mastodon_gov.audit.suite import ROOT

PAGE = ROOT / "docs" / "auditor" / "controls.md"
HEAD = """# Controls

Made from `mastodon_gov/audit/controls.yaml` by `python -m mastodon_gov.audit.document`; edit that file, not this page.

Level *strict* is looked at with `--level strict`. *Kernel*: only on a machine with a kernel of its own; in a container
the control is not run. BIO2 keeps the numbers of ISO 27002, so a number of ISO 27001's Annex A is BIO2's too; what
BIO2 adds stands behind `BIO2`. Which controls are not run, and why, stands in every report, and in
`mastodon_gov/audit/not_run.yaml`. An empty mapping means that no number is known; none is guessed.

| norm | edition |
|---|---|
| CIS | CIS Debian 13 v1.0.0 |
| ANSSI | ANSSI-BP-028 v2 |
| NIST | NIST SP 800-53 revision 5 |
| ISO | ISO/IEC 27001:2022, Annex A |
| BIO2 | Baseline Informatiebeveiliging Overheid 2, September 2025 |
| NZISM | NZISM v3.9, April 2025 |
"""
NORMS = {
    "cis_debian13": "CIS",
    "anssi_bp028": "ANSSI",
    "nist_800_53r5": "NIST",
    "iso27001_2022": "ISO",
    "bio2": "BIO2",
    "nzism": "NZISM",
}


def page(controls: Iterable[Control]) -> str:
    """The whole page: one part for each group, one entry for each control."""
    text, group = HEAD, ""
    for control in controls:
        if control.group != group:
            group = control.group
            text += f"\n## {group}\n"
        text += _entry(control)
    return text


def _entry(control: Control) -> str:
    marks = control.level + (", kernel" if control.needs_kernel else "")
    lines = [
        f"\n### {control.id} {control.title}\n",
        f"Level: {marks}. Part of the product: {control.role}.\n",
        f"Asked: {control.text}  ",
        f"Expected: {control.expected}  ",
        f"Remedy: {control.remedy}  ",
        f"Mappings: {mappings(control) or 'none known'}\n",
    ]
    return "\n".join(lines)


def mappings(control: Control) -> str:
    """`CIS 5.1.21; ANSSI R33`: numbers by norm."""
    told = control.mappings.model_dump()
    return "; ".join(f"{name} {', '.join(told[key])}" for key, name in NORMS.items() if told[key])


if __name__ == "__main__":
    PAGE.write_text(page(load().values()))
