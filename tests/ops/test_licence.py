from dataclasses import replace

from ops.licence import licence
from tests.ops.fakes import PIXTRAL_12B, PIXTRAL_LARGE


def test_a_released_model_is_known_by_its_shape():
    assert "Apache-2.0" in str(licence(PIXTRAL_12B.text))
    assert "non-commercial use only" in str(licence(PIXTRAL_LARGE.text))


def test_nothing_is_claimed_of_another_model():
    assert licence(replace(PIXTRAL_LARGE.text, layers=16)) is None
