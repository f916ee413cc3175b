import stat

import pytest

from ops.problem import Problem
from ops.state import KEY_PREFIX, State, write_private
from serve_app.config import load_config


@pytest.fixture
def state(tmp_path):
    return State.open({"PIXTRAL_STATE": str(tmp_path / "state")})


@pytest.fixture
def config(tmp_path):
    return load_config(None, {"model.path": str(tmp_path / "nano")})


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_the_owners_alone(tmp_path):
    folder = tmp_path / "wide"
    folder.mkdir(mode=0o755)
    assert mode(State.open({"PIXTRAL_STATE": str(folder)}).folder) == 0o700


def test_the_folder_defaults_below_the_users_state(tmp_path):
    state = State.open({"XDG_STATE_HOME": str(tmp_path)})
    assert state.folder == tmp_path / "pixtral-serve"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Problem, match="file/state cannot be made"):
        State.open({"PIXTRAL_STATE": str(tmp_path / "file" / "state")})


def test_the_key_is_made_once_private_and_long(state, config):
    key = state.api_key(config)
    assert state.api_key(config) == key
    assert key.startswith(KEY_PREFIX)
    # base64 carries six bits a character
    assert len(key.removeprefix(KEY_PREFIX)) * 6 >= 160
    assert mode(state.key_file) == 0o600
    assert state.key_file.read_text().strip() == key


def test_two_systems_have_two_keys(state, config, tmp_path):
    other = State.open({"PIXTRAL_STATE": str(tmp_path / "other")})
    assert other.api_key(config) != state.api_key(config)


def test_the_config_may_keep_the_key_elsewhere(state, tmp_path):
    file = tmp_path / "key"
    file.write_text("sk-pixtral-mine\n")
    config = load_config(None, {"model.path": "x", "gateway.api_key_file": str(file)})
    assert state.api_key(config) == "sk-pixtral-mine"
    assert not state.key_file.exists()


def test_a_file_that_holds_no_key_is_refused_without_telling_it(state, config):
    state.key_file.write_text("s3cret")
    with pytest.raises(Problem, match="holds no key") as problem:
        state.api_key(config)
    assert "s3cret" not in str(problem.value)


def test_what_runs_is_remembered_until_it_stops(state, config):
    assert state.running() is None
    state.note_running(config, ready=False)
    assert not state.running().ready
    state.note_running(config, ready=True)
    running = state.running()
    assert running.ready
    assert running.config == config
    assert mode(state.folder / "running.json") == 0o600
    state.note_stopped()
    state.note_stopped()
    assert state.running() is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"config": {"model": {}}}'])
def test_a_note_from_another_version_is_named(state, text):
    (state.folder / "running.json").write_text(text)
    with pytest.raises(Problem, match=r"running\.json cannot be understood"):
        state.running()


def test_one_start_or_stop_at_a_time(state):
    refused = pytest.raises(Problem, match="another `pixtral up` or `down`")
    with state.lock(), refused, state.lock():
        pass
    with state.lock():
        pass


def test_a_private_file_is_replaced_whole_and_leaves_no_draft(tmp_path):
    file = tmp_path / "file"
    file.write_text("old and longer")
    file.chmod(0o644)
    write_private(file, "new")
    assert file.read_text() == "new"
    assert mode(file) == 0o600
    assert list(tmp_path.iterdir()) == [file]
