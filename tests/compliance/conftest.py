"""What every check of the suite has: facts of the running host, the instance, and the duty to say what it saw.

`mastodon-gov audit` runs this suite; `pytest tests/compliance --instance DIR` does too. How to write a check:
docs/auditor/audit.md.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest

from mastodon_gov.audit import outside
from mastodon_gov.audit.catalogue import Collected, Control, faults, load, load_pinned
from mastodon_gov.audit.facts import Account, CouldNotLook, Facts, Foreseen, Hosts, hosts_of, seen
from mastodon_gov.audit.results import Check, State, words
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance
from mastodon_gov.instance.load import load as load_instance
from mastodon_gov.inventory import members

HERE = Path(__file__).parent
DEMO = HERE.parents[1] / "inventories/demo"
RECORD = pytest.StashKey[dict[str, Any]]()
KERNEL = "The host is a container and shares its kernel with others; only a machine of its own can be looked at."
NOBODY = "no host"  # where the inventory gives a role to none
SEEN = ("observed", "expected", "command")


class Evidence(Protocol):
    """Records what was seen; a check that records nothing fails."""

    def __call__(self, *, observed: object, expected: object, command: str) -> None: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """The same words as `mastodon-gov audit`."""
    group = parser.getgroup("audit")
    group.addoption("--instance", type=Path, default=DEMO, help="Directory of the instance.")
    group.addoption("--account", default="deploy", help="Account on the hosts: deploy, or auditor.")
    group.addoption("--key", type=Path, help="Private SSH key of the account; default: deploy_key of the instance.")
    group.addoption("--level", choices=["base", "strict"], default="base")
    group.addoption("--group", action="append", default=[], help="Only controls of this group, such as SSH.")
    group.addoption("--control", action="append", default=[], help="Only this control, such as MFG-SSH-01.")
    group.addoption("--probe", action="store_true", help="Also checks that write or provoke.")
    group.addoption("--from", dest="outside_from", default=outside.HERE, help="Where the outside checks ask from.")
    group.addoption("--from-ssh-config", type=Path, help="ssh_config for --from.")
    group.addoption("--report-fd", type=int, help="Descriptor for one JSON line a check.")


def role_of(item: pytest.Item) -> str:
    """tests/compliance/test_ssh.py checks the role ssh, and test_base__people.py the role base."""
    return item.path.stem.removeprefix("test_").partition("__")[0]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every check runs once for each host that has its role."""
    if "hostname" in metafunc.fixturenames:
        role = metafunc.module.__name__.rpartition("test_")[2].partition("__")[0]
        try:
            names = [outside.ROLE] if role == outside.ROLE else hosts_of(role, members(_directory(metafunc.config)))
        except Refusal as refusal:
            raise pytest.UsageError(str(refusal)) from None
        metafunc.parametrize("hostname", names or [NOBODY], scope="session")


def _directory(config: pytest.Config) -> Path:
    given: Path = config.getoption("--instance")
    return given.resolve()


def controls_of(item: pytest.Item) -> tuple[str, ...]:
    """The ids in an item's marks."""
    return tuple(str(mark.args[0]) for mark in item.iter_markers("control") if mark.args)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a suite that does not fit the catalogue; then keep what was asked for."""
    ours = [item for item in items if HERE in item.path.parents]
    try:
        controls, pinned = load(), load_pinned()
    except Refusal as refusal:
        raise pytest.UsageError(str(refusal)) from None
    tests = {
        Collected(item.nodeid.split("[")[0], role_of(item), controls_of(item), any(item.iter_markers("xfail")))
        for item in ours
    }
    whole = any((config.invocation_params.dir / arg.split("::")[0]).resolve() == HERE for arg in config.args)
    if wrong := faults(controls, pinned, tests, everything=whole):
        raise pytest.UsageError("\n".join(wrong))
    kept = [item for item in items if item not in ours or _wanted(config, controls[controls_of(item)[0]])]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _wanted(config: pytest.Config, control: Control) -> bool:
    groups = [group.upper() for group in config.getoption("--group")]
    return (
        (control.level == "base" or config.getoption("--level") == "strict")
        and (not groups or control.group in groups)
        and (not config.getoption("--control") or control.id in config.getoption("--control"))
    )


@pytest.fixture(scope="session")
def instance(request: pytest.FixtureRequest) -> Instance:
    """The instance as its directory describes it."""
    return load_instance(_directory(request.config))


@pytest.fixture(scope="session")
def hosts(request: pytest.FixtureRequest, instance: Instance) -> Iterator[Hosts]:
    """Connections to the hosts; the facts of every role that has a check in this run are fetched at once."""
    directory, option = _directory(request.config), request.config.getoption
    key = option("--key") or directory / "deploy_key"
    known = members(directory)
    names = dict.fromkeys(name for group in known.values() for name in group)
    with Hosts(directory, instance, names, Account(option("--account"), key if key.exists() else None)) as asked:
        roles = {role_of(item) for item in request.session.items if HERE in item.path.parents}
        if outside.ROLE in roles:
            request.getfixturevalue("stranger")  # begins now
        roles.discard(outside.ROLE)
        asked.fetch([(host, role) for role in sorted(roles | {"base"}) for host in hosts_of(role, known)])
        yield asked
        _report(request.config, {"session": asked.session()})


@pytest.fixture(scope="session")
def stranger(request: pytest.FixtureRequest, instance: Instance) -> Iterator[Future[dict[str, Any]]]:
    """What is seen from outside, asked for once, while the hosts are asked too."""
    option = request.config.getoption
    proxies = hosts_of("nginx", members(_directory(request.config)))
    asked = outside.questions(instance, proxies, option("outside_from"), option("--probe"))
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(outside.ask, asked, option("outside_from"), option("--from-ssh-config"))


@pytest.fixture
def facts(request: pytest.FixtureRequest, hosts: Hosts, instance: Instance, hostname: str) -> Facts:
    """What the program of this module's role said on this host; what it could not look at raises CouldNotLook."""
    if hostname == outside.ROLE:
        told: Facts = seen(request.getfixturevalue("stranger").result())
        return told
    return hosts.facts(hostname, role_of(request.node))


@pytest.fixture
def host(hosts: Hosts, hostname: str) -> Any:
    """testinfra's host on the kept connection, for probes. Everything else asks `facts`."""
    hosts.commands += 1
    return hosts.connection(hostname)


@pytest.fixture
def evidence(request: pytest.FixtureRequest, hostname: str) -> Evidence:
    """`evidence(observed=…, expected=…, command=…)`: for the report, before the assert."""
    record = request.node.stash.setdefault(RECORD, {})

    def say(*, observed: object, expected: object, command: str) -> None:
        record.update(zip(SEEN, (words(observed), words(expected), command), strict=True))

    return say


@pytest.fixture(autouse=True)
def _looks(request: pytest.FixtureRequest) -> None:
    """What cannot be looked at here is not run, with its reason."""
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("hostname") == NOBODY:
        raise CouldNotLook(f"No host of inventory.py has the role {role_of(request.node)}.")
    control = load()[controls_of(request.node)[0]]
    if any(request.node.iter_markers("probe")) and not request.config.getoption("--probe"):
        raise Foreseen("This check writes or provokes; it runs only with --probe.")
    if request.getfixturevalue("instance").lab and control.id in load_pinned().lab:
        raise Foreseen(load_pinned().lab[control.id])
    if control.needs_kernel:
        known = request.getfixturevalue("hosts").facts(request.getfixturevalue("hostname"), "base")
        if known["host"]["container"]:
            raise Foreseen(KERNEL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A check ends as passed, failed or not run; nothing else."""
    report = yield
    record = item.stash.setdefault(RECORD, {})
    record.setdefault("began", call.start)
    if call.excinfo:
        record["state"], record["reason"] = judged(call.excinfo.value)
        record["foreseen"] = isinstance(call.excinfo.value, Foreseen)
    elif call.when == "call" and "observed" not in record:
        record["state"], record["reason"] = State.FAILED, "The check recorded no evidence."
        report.outcome, report.longrepr = "failed", record["reason"]
    if record.get("state") is State.NOT_RUN and report.outcome == "failed":
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: {record['reason']}")
    if call.when == "teardown":
        _report(item.config, {"check": vars(_check(item, record))})
    return report


def judged(error: BaseException) -> tuple[State, str]:
    """What an exception means: only an assertion has looked, and found something wrong."""
    if isinstance(error, AssertionError | pytest.fail.Exception):
        return State.FAILED, str(error).splitlines()[0][:300] if str(error) else "Not as expected."
    if isinstance(error, CouldNotLook | pytest.skip.Exception | Refusal):
        return State.NOT_RUN, str(error)
    return State.NOT_RUN, f"The check itself broke: {type(error).__name__}: {str(error)[:300]}"


def _check(item: pytest.Item, record: dict[str, Any]) -> Check:
    return Check(
        control=controls_of(item)[0],
        name=item.name,
        role=role_of(item),
        host=item.callspec.params.get("hostname", "") if hasattr(item, "callspec") else "",
        state=record.get("state", State.PASSED),
        reason=record.get("reason", ""),
        foreseen=record.get("foreseen", False),
        at=datetime.fromtimestamp(record["began"], UTC).isoformat(timespec="seconds"),
        seconds=round(time.time() - record["began"], 3),
        **{name: record.get(name, "") for name in SEEN},
    )


def _report(config: pytest.Config, told: dict[str, Any]) -> None:
    if (descriptor := config.getoption("--report-fd")) is not None:
        os.write(descriptor, (json.dumps(told) + "\n").encode())
