"""Reads the catalogue of controls and the pinned list of those not run; refuses a wrong edit with sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError

from mastodon_gov.errors import Refusal
from mastodon_gov.instance.explain import explain
from mastodon_gov.instance.problems import refuse, show
from mastodon_gov.instance.types import Allowed, Flag, Part
from mastodon_gov.instance.yaml_file import Document, read

HERE = Path(__file__).parent
CONTROLS, NOT_RUN = HERE / "controls.yaml", HERE / "not_run.yaml"

OUTSIDE = "outside"  # a stranger may look at any control

Id = Annotated[
    str, Field(pattern=r"^MFG-[A-Z0-9]{2,4}-[0-9]{2}$"), Allowed("an id such as MFG-SSH-01: group and two digits")
]
Sentence = Annotated[str, Field(strict=True, min_length=3, max_length=400)]
Role = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$"), Allowed("the name of a role in small letters")]
Reference = Annotated[str, Field(strict=True, min_length=1)]
References = tuple[Reference, ...]


class Mappings(Part):
    """Numbers of the same demand in norms. BIO2 keeps ISO 27002's numbers; `bio2` lists the measures it adds."""

    cis_debian13: References = ()
    anssi_bp028: References = ()
    nist_800_53r5: References = ()
    iso27001_2022: References = ()
    bio2: References = ()
    nzism: References = ()


class Control(Part):
    """One thing that must be so, and how a person makes it so."""

    id: Id
    title: Sentence
    level: Literal["base", "strict"]
    role: Role
    needs_kernel: Flag = False
    text: Sentence
    expected: Sentence
    remedy: Sentence
    mappings: Mappings

    @property
    def group(self) -> str:
        """The middle of the id: SSH of MFG-SSH-01."""
        return self.id.split("-")[1]


class Catalogue(Part):
    """Every control, in the order of the file."""

    format: Literal[1]
    controls: tuple[Control, ...] = Field(min_length=1)


class Pinned(Part):
    """Why controls are not run: `always`, because no role does it yet (no test may exist), or only in a `lab`."""

    format: Literal[1]
    always: dict[Id, Sentence]
    lab: dict[Id, Sentence]


Model = TypeVar("Model", bound=Part)


def read_model(path: Path, model: type[Model]) -> Model:
    """The file as this model. Raises Refusal: one sentence for each fault, with its line."""
    # PyYAML's own C parser is ten times as fast as the one that knows lines; those matter when something is wrong.
    try:
        return model.model_validate(yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader))
    except (ValidationError, yaml.YAMLError, OSError, UnicodeDecodeError):
        return read_carefully(path, model)


def read_carefully(path: Path, model: type[Model]) -> Model:
    """As `read_model`, also for a key that stands twice and for YAML's guesses: what people outside write."""
    document = read(path)
    refuse(document.problems, [document.file])
    try:
        return model.model_validate(document.data)
    except ValidationError as errors:
        if not isinstance(document.data, dict):
            document.problem((), show(document.data), "`key: value` lines", "Start from the file in the documentation.")
        for error in errors.errors(include_url=False) if not document.problems else ():
            key = tuple(part for part in error["loc"] if part != "[key]")
            found, allowed, todo = explain(model, error, key, document.raw.get(key))
            document.problem(key, found, allowed, todo)
        refuse(document.problems, [document.file])
        raise


@cache
def load(path: Path = CONTROLS) -> dict[str, Control]:
    """Controls by id. Raises Refusal for a wrong file and for an id that stands twice."""
    found = read_model(path, Catalogue).controls
    by_id = {control.id: control for control in found}
    if len(by_id) != len(found):
        document = Document(path.name)
        ids = [control.id for control in found]
        for id_ in by_id:
            if ids.count(id_) > 1:
                document.problem((), f"{id_} {ids.count(id_)} times", "each id once", "Give one of them another id.")
        refuse(document.problems, [document.file])
    return by_id


@cache
def load_pinned(path: Path = NOT_RUN) -> Pinned:
    """The pinned list. Raises Refusal for a wrong file and for ids that the catalogue does not know."""
    pinned = read_model(path, Pinned)
    unknown = sorted((set(pinned.always) | set(pinned.lab)) - set(load()))
    if unknown:
        raise Refusal(f"{path.name}: found {', '.join(unknown)}. Allowed: ids of controls.yaml. Correct or remove it.")
    return pinned


@dataclass(frozen=True)
class Collected:
    """What collection saw of one test: where it is, and its marks."""

    name: str
    role: str
    controls: tuple[str, ...]
    xfail: bool = False


def faults(
    controls: Mapping[str, Control], pinned: Pinned, tests: Collection[Collected], *, everything: bool = True
) -> list[str]:
    """What is wrong between catalogue and suite; a suite with any of it is not run. `everything`: no module is left
    out, so that a control without test is seen whichever its role is."""
    wrong: list[str] = []
    tested: set[str] = set()
    roles = {test.role for test in tests}
    for test in tests:
        tested |= set(test.controls)
        if len(test.controls) != 1:
            wrong.append(f"{test.name}: has {len(test.controls)} marks `control`; exactly one is allowed.")
        for id_ in test.controls:
            if id_ not in controls:
                wrong.append(f"{test.name}: {id_} is not in controls.yaml. Correct the id, or add the control.")
            elif test.role not in (controls[id_].role, OUTSIDE):
                wrong.append(f"{test.name}: {id_} belongs to the role {controls[id_].role}. Move the test, or the row.")
        if test.xfail:
            wrong.append(
                f"{test.name}: xfail is not allowed. An accepted fault stands in exceptions.yaml, with a date."
            )
    due = {id_ for id_, control in controls.items() if everything or control.role in roles}
    wrong += [f"{id_}: has neither a test nor a reason in not_run.yaml." for id_ in due - tested - pinned.always.keys()]
    wrong += [
        f"{id_}: has a test and stands in not_run.yaml (always). Take it off." for id_ in tested & pinned.always.keys()
    ]
    return sorted(set(wrong))
