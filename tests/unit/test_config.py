"""Claims about a pipeline's file: what it takes, and how it says what it does not."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr, TypeAdapter, ValidationError, field_validator

from cdcsync import config, connectors
from cdcsync.connectors import Connector
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.units import Duration

if TYPE_CHECKING:
    from collections.abc import Callable


class Server(BaseModel):
    """A system's section as connectors have them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    port: int = 1
    user: str = "cdc"
    password: SecretStr | None = None
    ca: Path | None = None

    @field_validator("password")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value() == "tooshort":
            msg = f"refused: {value.get_secret_value()}"
            raise ValueError(msg)
        return value


def from_url(url: str) -> dict[str, Any]:
    """Return the section of `here://user:password@host`."""
    parts = urlsplit(url)
    section = {"host": parts.hostname, "user": parts.username, "password": unquote(parts.password or "")}
    return {key: value for key, value in section.items() if value}


SPEC: Any = SimpleNamespace(config=Server)
HERE = Connector("here", ("here", "hier"), from_url, source=SPEC, sink=SPEC, store=SPEC)
THERE = Connector("there", ("there",), from_url, sink=SPEC)


@pytest.fixture(autouse=True)
def _systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put two systems in the place of the installed ones."""
    known = {"here": HERE, "there": THERE}
    monkeypatch.setattr(connectors, "names", lambda: dict.fromkeys(known))
    monkeypatch.setattr(connectors, "load", known.__getitem__)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of files in a folder of their own."""

    def written(text: str, name: str = "orders.yaml", mode: int = 0o600) -> Path:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    return written


GOOD = """\
source: {here: {host: db1}}
sink: {there: {host: db2}}
tables: [shop.orders]
"""


def refusal(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    """Return the lines of the refusal with the folder left out, and check its status."""
    with pytest.raises(Fatal) as caught:
        config.load(path, environ=environ or {})
    assert caught.value.status is ExitStatus.CONFIG
    return str(caught.value.args[0]).replace(f"{path.parent}/", "").split("\n")


def test_six_mistakes_in_one_file_give_six_lines_each_with_its_place(write: Callable[..., Path]) -> None:
    path = write("""\
source:
  heer: {host: db1}
sink:
  there: {host: db2, prt: 5}
tables:
  - from: shop.orders
    exlude: [note]
on_rejected: dead_leter
heartbeat: soon
batch: {changes_max: "5"}
""")

    got = refusal(path)

    want = [
        "orders.yaml:2:3: no system is named heer; did you mean here?",
        "orders.yaml:4:22: unknown key prt; did you mean port?",
        "orders.yaml:7:5: unknown key exlude; did you mean exclude?",
        "orders.yaml:8:14: on_rejected: expected 'stop', 'dead_letter' or 'skip'; did you mean dead_letter?",
        "orders.yaml:9:12: heartbeat: not a duration; write 500ms, 30s, 10m, 2h or 1d",
        "orders.yaml:10:22: changes_max: expected a whole number",
    ]
    assert got == want


def test_a_syntax_error_names_its_place(write: Callable[..., Path]) -> None:
    (got,) = refusal(write("source: {here\nsink: x: y\n"))

    assert got.startswith("orders.yaml:2:")


def test_a_key_that_stands_twice_is_refused(write: Callable[..., Path]) -> None:
    got = refusal(write(GOOD + "sink: {there: {host: db3}}\n"))

    assert got == ["orders.yaml:4:1: sink stands here twice, first in line 2"]


def test_a_file_without_tables_is_refused(write: Callable[..., Path]) -> None:
    (got,) = refusal(write("source: {here: {host: a}}\nsink: {there: {host: b}}\n"))

    assert "no tables" in got


def test_an_empty_file_and_a_list_are_refused(write: Callable[..., Path]) -> None:
    assert "has keys" in refusal(write(""))[0]
    assert "has keys" in refusal(write("- a\n"))[0]


def test_a_file_that_is_not_there_is_a_refusal(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "none.yaml")[0]


def test_a_system_that_is_no_source_is_refused_as_one(write: Callable[..., Path]) -> None:
    got = refusal(write("source: {there: {host: a}}\nsink: {there: {host: b}}\ntables: [a.b]\n"))

    assert got == ["orders.yaml:1:10: there cannot be a source"]


def test_two_systems_in_one_section_are_refused(write: Callable[..., Path]) -> None:
    got = refusal(write("source: {here: {host: a}, there: {host: b}}\nsink: {there: {host: b}}\ntables: [a.b]\n"))

    assert got == ["orders.yaml:1:1: source: name one system; there are: here, there"]


def test_a_url_says_the_same_as_a_section(write: Callable[..., Path]) -> None:
    got = config.load(write("source: hier://db1\nsink: there://me@db2\ntables: [shop.orders]\n"), environ={})

    assert got.source.system == "here"
    assert got.sink.config == Server(host="db2", user="me")


def test_mapping_files_are_relative_and_their_mistakes_have_their_own_places(write: Callable[..., Path]) -> None:
    write("tables:\n  - shop.*\n  - {from: a.b, too: c}\n", "shop.yaml")
    path = write("source: here://a\nsink: there://b\nmappings: [shop.yaml, none.yaml]\n")

    got = refusal(path)

    assert got[0].startswith("orders.yaml:3:23: there is no file")
    assert got[1].startswith("shop.yaml:3:17: unknown key too")


def test_entries_keep_their_places(write: Callable[..., Path]) -> None:
    got = config.load(write(GOOD), environ={})

    assert [rule.mapping.from_ for rule in got.rules] == ["shop.orders"]
    assert got.rules[0].where.endswith("orders.yaml:3:10")


def test_the_name_is_the_files_by_default(write: Callable[..., Path]) -> None:
    assert config.load(write(GOOD), environ={}).name == "orders"
    assert config.load(write("name: other\n" + GOOD), environ={}).name == "other"


def test_a_bare_name_is_looked_up_in_the_users_folder(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config/cdcsync").mkdir(parents=True)
    write(GOOD, ".config/cdcsync/mine.yaml")

    assert config.load("mine", environ={}).name == "mine"


def test_paths_of_a_section_are_relative_to_the_file(write: Callable[..., Path], tmp_path: Path) -> None:
    got = config.load(write(GOOD.replace("db1", "db1, ca: tls/ca.pem")), environ={})

    assert got.source.config == Server(host="db1", ca=tmp_path / "tls/ca.pem")


def test_secrets_come_from_environment_file_and_credential(write: Callable[..., Path], tmp_path: Path) -> None:
    write("from file\n", "secret.txt")
    write("from credential\n", "db")
    path = write("""\
source: {here: {host: a, password: "${env:PW}"}}
sink: {there: {host: b, password: "${file:secret.txt}"}}
positions: {here: {host: c, password: "${credential:db}"}}
tables: [a.b]
""")

    got = config.load(path, environ={"PW": "from env", "CREDENTIALS_DIRECTORY": str(tmp_path)})

    sections: list[Any] = [got.source.config, got.sink.config, got.positions and got.positions.config]
    assert [section.password.get_secret_value() for section in sections] == ["from env", "from file", "from credential"]
    assert got.warnings == ()
    assert "from env" not in repr(got)


def test_every_missing_secret_is_named_with_its_place(write: Callable[..., Path]) -> None:
    got = refusal(
        write("""\
source: {here: {host: a, password: "${env:PW}"}}
sink: {there: {host: b, password: "${file:none}"}}
positions: {here: {host: "${envv:X}", password: "${credential:db}"}}
tables: [a.b]
""")
    )

    assert [re.match(r"orders.yaml:\d+:\d+: ", line) is not None for line in got] == [True] * 4
    assert "no variable PW" in got[0]
    assert "cannot be read: No such file" in got[1]
    assert "did you mean env?" in got[2]
    assert "$CREDENTIALS_DIRECTORY is not set" in got[3]


def test_a_secret_in_a_url_may_hold_anything(write: Callable[..., Path]) -> None:
    path = write('source: "here://me:${env:PW}@db1"\nsink: there://b\ntables: [a.b]\n')

    got: Any = config.load(path, environ={"PW": "p@ss/w:rd#%"}).source.config

    assert got.password.get_secret_value() == "p@ss/w:rd#%"


PLAIN = GOOD.replace("db1", "db1, password: hunter2")


def test_a_plain_secret_in_a_private_file_is_taken_with_a_warning(write: Callable[..., Path]) -> None:
    got = config.load(write(PLAIN), environ={})

    assert len(got.warnings) == 1
    assert "hunter2" not in got.warnings[0]
    assert ":1:38: password: a plain secret" in got.warnings[0]


def test_a_plain_secret_in_a_file_for_others_is_refused(write: Callable[..., Path]) -> None:
    (got,) = refusal(write(PLAIN, mode=0o644))

    assert "others may read" in got
    assert "hunter2" not in got


def test_a_plain_secret_is_refused_under_systemd(write: Callable[..., Path]) -> None:
    (got,) = refusal(write(PLAIN), {"NOTIFY_SOCKET": "/run/systemd/notify"})

    assert "not taken under systemd" in got


def test_a_plain_secret_in_a_url_counts_too(write: Callable[..., Path]) -> None:
    (got,) = refusal(write("source: here://me:hunter2@db1\nsink: there://b\ntables: [a.b]\n", mode=0o640))

    assert "others may read" in got
    assert "hunter2" not in got


@pytest.mark.parametrize(
    "given",
    ["password: tooshort", "password: [hunter2]", "password: {hunter2: 1}", 'port: "${env:PW}"', 'prot: "${env:PW}"'],
)
def test_no_refusal_shows_a_secret(write: Callable[..., Path], given: str) -> None:
    got = refusal(write(GOOD.replace("host: db1", f"host: db1, {given}")), {"PW": "hunter2"})

    assert "hunter2" not in str(got)
    assert "tooshort" not in str(got)


def test_state_lies_where_systemd_says(write: Callable[..., Path]) -> None:
    path = write(GOOD)

    assert config.load(path, environ={"STATE_DIRECTORY": "/var/lib/cdcsync/x"}).state == Path("/var/lib/cdcsync/x")
    assert config.load(path, environ={"RUNTIME_DIRECTORY": "/run/cdcsync"}).socket == Path("/run/cdcsync/orders.sock")


def test_state_in_the_file_is_relative_to_it(write: Callable[..., Path], tmp_path: Path) -> None:
    assert config.load(write(GOOD + "state: here\n"), environ={}).state == tmp_path / "here"


def test_urls_of_the_command_line_make_a_config_that_can_be_saved(tmp_path: Path) -> None:
    environ = {"PW": "hunter2"}
    given = config.from_urls("here://me:${env:PW}@db1", "there://db2", ["shop.*"], name="quick", environ=environ)

    config.save(given, tmp_path / "quick.yaml")
    got = config.load(tmp_path / "quick.yaml", environ=environ)

    assert (got.name, got.source, got.sink) == (given.name, given.source, given.sink)
    assert [rule.mapping for rule in got.rules] == [rule.mapping for rule in given.rules]
    assert "hunter2" not in (tmp_path / "quick.yaml").read_text()
    assert (tmp_path / "quick.yaml").stat().st_mode & 0o777 == 0o600


def test_a_wrong_url_of_the_command_line_says_so() -> None:
    with pytest.raises(Fatal, match="command line:1:1: no system is named nowhere"):
        config.from_urls("here://a", "nowhere", ["a.b"], environ={})


@pytest.mark.parametrize(
    ("text", "want"),
    [("500ms", 0.5), ("30s", 30), ("1h 30m", 5400), (5, 5), (0.5, 0.5)],
)
def test_durations_are_read(text: object, want: float) -> None:
    assert TypeAdapter(Duration).validate_python(text) == timedelta(seconds=want)


@pytest.mark.parametrize("text", ["", "5", "soon", "5 parsecs", "-5s"])
def test_other_words_are_no_durations(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)
