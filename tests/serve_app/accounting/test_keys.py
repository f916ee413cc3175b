import re
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.accounting.keys import (
    KeyDigester,
    ensure_pepper,
    new_token,
    read_pepper,
)
from serve_app.config import ConfigError

PEPPER = bytes(range(32))
OURS = new_token()
PUBLIC_ID = OURS[len("sk-pixtral-") :][:12]
BOOTSTRAP = "sk-pixtral-" + "aB3_-xYz" * 4


@pytest.fixture
def digester() -> KeyDigester:
    return KeyDigester(PEPPER)


def test_a_key_carries_its_public_id_and_160_random_bits_or_more(digester):
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert len({digester.public_id(token) for token in tokens}) == 100
    for token in tokens:
        secret = re.fullmatch(r"sk-pixtral-([a-z2-7]{12})_([0-9A-Za-z]{32})[0-9A-Za-z]{6}", token)
        assert secret is not None
        assert secret.group(1) == digester.public_id(token)
        assert 62 ** len(secret.group(2)) > 2**160


@given(st.integers(0, 50), st.sampled_from("0aZ_-~é\n"))
def test_a_typo_is_seen_offline(place, letter):
    start = len("sk-pixtral-") + place
    mistyped = OURS[:start] + letter + OURS[start + 1 :]
    expected = PUBLIC_ID if mistyped == OURS else None
    assert KeyDigester(PEPPER).public_id(mistyped) == expected


NO_KEYS = ["", "\ud800", "a\0b", "sk-pixtral-", "sk-pixtral-short", "sk-other-" + "a" * 40]
NO_KEYS += [f"sk-pixtral-{rest}" for rest in ("a" * 51, "a" * 129, "a" * 20 + "\n", "ä" * 20)]


@pytest.mark.parametrize("token", NO_KEYS)
def test_what_can_be_no_key_has_no_public_id_yet_a_digest(digester, token):
    assert digester.public_id(token) is None
    assert len(digester.digest(token)) == 32


def test_a_key_made_outside_has_one_derived_public_id_under_the_pepper(digester):
    public_id = digester.public_id(BOOTSTRAP)
    assert public_id == KeyDigester(PEPPER).public_id(BOOTSTRAP)
    assert re.fullmatch("[0-9a-f]{16}", public_id or "")
    assert public_id != KeyDigester(bytes(32)).public_id(BOOTSTRAP)
    assert digester.digest(BOOTSTRAP).hex()[:16] != public_id


def test_a_digest_depends_on_every_part_and_on_the_pepper(digester):
    token = new_token()
    assert digester.digest(token) == digester.digest(token)
    assert digester.digest(token) != KeyDigester(bytes(32)).digest(token)
    assert digester.digest(token) != digester.digest(token[:-1])


def test_a_short_pepper_is_refused():
    with pytest.raises(ConfigError, match="31 bytes"):
        KeyDigester(bytes(31))


def test_the_pepper_is_made_once_for_its_owner_only(tmp_path: Path):
    file = tmp_path / "pepper"
    pepper = ensure_pepper(file)
    assert len(pepper) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ensure_pepper(file) == read_pepper(file) == pepper
    assert list(tmp_path.iterdir()) == [file]


def test_peppers_made_at_once_are_the_same(tmp_path: Path):
    file, barrier, peppers = tmp_path / "pepper", threading.Barrier(8), []

    def make() -> None:
        barrier.wait()
        peppers.append(ensure_pepper(file))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(peppers) == 8
    assert len(set(peppers)) == 1


def test_an_unfit_pepper_is_refused_by_its_key(tmp_path: Path):
    file = tmp_path / "pepper"
    with pytest.raises(ConfigError, match=r"accounting\.pepper_file.*No such file"):
        read_pepper(file)
    with pytest.raises(ConfigError, match=r"accounting\.pepper_file"):
        ensure_pepper(tmp_path / "missing" / "pepper")
    file.write_bytes(bytes(31))
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="holds 31 bytes"):
        read_pepper(file)
    file.write_bytes(bytes(32))
    file.chmod(0o604)
    with pytest.raises(ConfigError, match="mode 604"):
        read_pepper(file)
    file.chmod(0o440)
    assert read_pepper(file) == bytes(32)
