import pytest

from ops.settings import Options, bundled_folder, resolve
from ops.state import State
from serve_app.config import ConfigError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def resolved(options, tmp_path):
    """The config and the folders that a bundled model was asked for."""
    made = []

    def make(folder):
        made.append(folder)
        return folder

    return resolve(options, make, State(tmp_path / "state")), made


def test_nothing_said_serves_the_bundled_model(tmp_path, cache):
    config, made = resolved(Options(), tmp_path)
    assert made == [bundled_folder()]
    assert config.model.path == cache / "pixtral-serve" / "models" / "pixtral-nano"
    assert config.model.name == "pixtral-nano"
    assert not config.model.untrained
    assert config.decoder.tensor_parallel == 2
    assert config.gateway.api_key_file == tmp_path / "state" / "bootstrap_key"
    assert config.gateway.auth


def test_accounts_and_journal_are_kept_with_the_state_unless_the_file_says_where(tmp_path):
    config, _ = resolved(Options(), tmp_path)
    state = tmp_path / "state"
    assert config.accounting.database_url == f"sqlite:///{state / 'accounting.sqlite'}"
    assert config.accounting.pepper_file == state / "pepper"
    assert config.decoder.journal_folder == state / "journal"

    file = tmp_path / "config.yaml"
    file.write_text(
        "accounting: {database_url: postgresql://me@db/ledger, pepper_file: /keys/pepper,"
        " database_password_file: /keys/db}\ndecoder: {journal_folder: /journal}\n"
    )
    config, _ = resolved(Options(config=file), tmp_path)
    assert config.accounting.database_url == "postgresql://me@db/ledger"
    assert str(config.accounting.pepper_file) == "/keys/pepper"
    assert str(config.accounting.database_password_file) == "/keys/db"
    assert str(config.decoder.journal_folder) == "/journal"


def test_several_gateways_need_another_database(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("gateway: {autoscaling: {max_replicas: 3}}\n")
    with pytest.raises(ConfigError, match=r"set accounting\.database_url to a PostgreSQL one"):
        resolved(Options(config=file), tmp_path)


def test_a_model_given_is_served_under_its_folders_name(tmp_path):
    config, made = resolved(Options(model=tmp_path / "Pixtral-12B-2409"), tmp_path)
    assert made == []
    assert config.model.name == "Pixtral-12B-2409"
    assert not config.model.untrained


def test_options_win_over_the_file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        "model: {path: /models/a, name: served}\n"
        "gateway: {port: 9000, api_key_file: /keys/one}\ndecoder: {tensor_parallel: 4}\n"
    )
    config, _ = resolved(Options(config=file), tmp_path)
    assert (config.gateway.port, config.decoder.tensor_parallel) == (9000, 4)
    assert str(config.gateway.api_key_file) == "/keys/one"

    options = Options(file, tmp_path / "b", port=9001, tensor_parallel=1, auth=False)
    config, _ = resolved(options, tmp_path)
    assert (config.gateway.port, config.decoder.tensor_parallel) == (9001, 1)
    assert config.model.path == tmp_path / "b"
    assert config.model.name == "served"
    assert not config.gateway.auth


def test_a_file_that_names_no_model_gets_the_bundled_one(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("gateway: {port: 9000}\n")
    _, made = resolved(Options(config=file), tmp_path)
    assert made == [bundled_folder()]


def test_paths_become_absolute_as_tiers_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text("model: {path: models/a}\ngateway: {api_key_file: keys/one}\n")
    config, _ = resolved(Options(config=file), tmp_path)
    assert config.model.path == tmp_path / "models" / "a"
    assert config.gateway.api_key_file == tmp_path / "keys" / "one"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gateway: {prot: 9000}", "gateway.prot"),
        ("gateway: [1", "config.yaml"),
        ("- 1", "mapping"),
    ],
)
def test_a_bad_file_is_refused_before_a_model_is_made(tmp_path, text, reason):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        resolve(Options(config=file), _never, State(tmp_path / "state"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        resolve(Options(config=tmp_path / "nowhere.yaml"), _never, State(tmp_path / "state"))


def _never(folder):
    raise AssertionError("no model is made for a config that is refused")
