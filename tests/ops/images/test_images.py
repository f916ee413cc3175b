"""The Dockerfiles under hadolint and a few rules of our own; nothing builds them here."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops.deploy import layout

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "ops" / "images"
FILES = ("Dockerfile", "Dockerfile.cuda")
EACH = pytest.mark.parametrize("name", FILES)
# What our user must never be given in a layer.
_SECRET = re.compile(r"password|secret|token|pepper|api_key|private", re.IGNORECASE)


def linted(file: Path) -> set[str]:
    """The rules that a file breaks."""
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("No module named hadolint: install the dev extra")
    command = [str(hadolint), "--format", "json", "--failure-threshold", "style", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr
    return {each["code"] for each in json.loads(done.stdout)}


def instructions(name: str) -> list[tuple[str, str]]:
    """Each with what follows it; lines that go on are joined."""
    text = re.sub(r"\\\n", " ", (IMAGES / name).read_text())
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return [(word.upper(), rest.strip()) for word, _, rest in pairs]


@EACH
def test_hadolint_finds_nothing(name):
    assert linted(IMAGES / name) == set()


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("USER 1000:1000", "USER root", "DL3002"),
        ("WORKDIR /tmp", "WORKDIR tmp", "DL3000"),
        ("ARG BASE=python:3.11.13-slim-bookworm", "ARG BASE=python:latest", None),
        ("--no-install-recommends", "", "DL3015"),
        ("    && rm -rf /var/lib/apt/lists/*", "    && true", "DL3009"),
    ],
)
def test_what_is_wrong_is_found(tmp_path, old, new, rule):
    text = (IMAGES / "Dockerfile").read_text()
    assert text.count(old) == 1
    changed = tmp_path / "Dockerfile"
    changed.write_text(text.replace(old, new))
    if rule is None:
        # hadolint does not follow arguments: the rule below does.
        (base,) = re.findall(r"^ARG BASE=(.*)$", changed.read_text(), re.MULTILINE)
        assert not pinned(base)
    else:
        assert rule in linted(changed)


def pinned(image: str) -> bool:
    """By an exact version, or by digest."""
    tag = image.partition("@")[0].partition(":")[2]
    return bool(re.match(r"\d+\.\d+\.\d+", tag)) or "@sha256:" in image


@EACH
def test_the_base_is_pinned_and_can_be_given_by_digest(name):
    found = instructions(name)
    (base,) = (rest for word, rest in found if word == "ARG" and rest.startswith("BASE="))
    assert pinned(base.removeprefix("BASE="))
    sources = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert sorted(set(sources)) == ["${BASE}", "scratch"]
    assert len(sources) == 3, "built in one stage, run in another"


@EACH
def test_it_runs_as_the_user_that_pods_run_as(name):
    users = [rest for word, rest in instructions(name) if word == "USER"]
    assert users == [f"{layout.USER}:{layout.USER}"]


@EACH
def test_no_secret_is_built_in(name):
    for word, rest in instructions(name):
        if word in ("ARG", "ENV"):
            assert not _SECRET.search(rest), rest
        if word in ("COPY", "ADD"):
            assert word == "COPY", "ADD fetches"
            assert rest.split()[0] not in (".", "./"), "copies whatever lies there"


@EACH
def test_packages_are_those_of_the_constraints(name):
    installs = [
        rest for word, rest in instructions(name) if word == "RUN" and "pip install" in rest
    ]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in each or "--no-deps" in each for each in installs)


def test_only_sources_reach_the_builder():
    admitted = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()
    for name in FILES:
        copied = [
            source
            for word, rest in instructions(name)
            if word == "COPY" and not rest.startswith("--from")
            for source in rest.split()[:-1]
        ]
        for source in copied:
            assert (ROOT / source).exists(), source
            assert any(
                source == each or source.startswith(each.removesuffix("/**")) for each in admitted
            ), source
    assert not {".git", ".venv", ".state", "tests"} & {each.split("/")[0] for each in admitted}


def test_the_probes_tool_is_in_the_image():
    from ops.deploy.pods import _probes

    command = _probes("head")["livenessProbe"]["exec"]["command"][2]
    assert command.startswith("wget ")
    for name in FILES:
        (apt,) = (rest for word, rest in instructions(name) if "apt-get install" in rest)
        for package in ("ca-certificates", "e2fsprogs", "mdadm", "wget"):
            assert f" {package} " in apt
    assert shutil.which("bash"), "the shell of the probes is the base image's"
