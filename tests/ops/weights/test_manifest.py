import json

import pytest

from ops.problem import Problem
from ops.weights import manifest
from ops.weights.manifest import Part
from tests.ops.weights.conftest import TEXT, VISION


def test_a_manifest_says_whose_tensors_are_where(checkpoint):
    made = manifest.read(checkpoint)
    parts = {entry.name: entry.parts for entry in made.files}
    assert parts == {
        "consolidated.safetensors.index.json": (),
        TEXT: ("text",),
        VISION: ("vision",),
        "params.json": (),
        "tekken.json": (),
    }
    assert TEXT not in [entry.name for entry in made.of(Part.VISION).files]
    assert VISION not in [entry.name for entry in made.of(Part.TEXT).files]


def test_a_part_is_no_source_of_another(checkpoint):
    vision = manifest.read(checkpoint).of(Part.VISION)
    with pytest.raises(Problem, match="holds the vision part only"):
        vision.of(Part.TEXT)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "../../etc/cron.d/x"}, "no plain file name"),
        ({"name": "/etc/passwd"}, "no plain file name"),
        ({"name": "manifest.json"}, "no plain file name"),
        ({"name": ".hidden"}, "no plain file name"),
        ({"sha256": "xyz"}, "sha256"),
        ({"bytes": -1}, "bytes"),
        ({"name": VISION}, "twice"),
    ],
)
def test_a_manifest_that_is_not_believed(checkpoint, change, reason):
    values = json.loads((checkpoint / "manifest.json").read_text())
    (entry,) = [each for each in values["files"] if each["name"] == TEXT]
    entry |= change
    with pytest.raises(Problem, match=reason):
        manifest.parse(json.dumps(values), "it")


def test_a_folder_without_weights(tmp_path, checkpoint):
    for file in (TEXT, VISION):
        (checkpoint / file).unlink()
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(Problem, match="no consolidated"):
        manifest.make(checkpoint)
