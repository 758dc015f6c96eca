"""A section on Kafka becomes librdkafka's settings; what would break the promise is refused with the reason."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from cdcsync.errors import Fatal
from cdcsync.kafka.client import REFUSED, SECRETS, KafkaClientConfig, from_url
from cdcsync.kafka.source_config import KafkaSource
from cdcsync.kafka.topics import reading


def settings(**section: object) -> dict[str, object]:
    return KafkaClientConfig.model_validate({"brokers": ["k1.example"], **section}).settings("test")


def test_tls_is_verified_in_full_unless_every_broker_is_on_this_machine() -> None:
    assert settings()["security.protocol"] == "SSL"
    assert settings()["ssl.endpoint.identification.algorithm"] == "https"
    assert settings(brokers=["127.0.0.1:9092", "localhost"])["security.protocol"] == "PLAINTEXT"
    assert settings(brokers=["127.0.0.1"], tls={"ca": "/ca.pem"})["security.protocol"] == "SSL"
    assert settings(tls={"mode": "disable"})["security.protocol"] == "PLAINTEXT"


def test_a_login_by_password_goes_with_tls() -> None:
    got = settings(sasl={"mechanism": "SCRAM-SHA-256", "username": "u", "password": "p"})

    assert got["security.protocol"] == "SASL_SSL"
    assert (got["sasl.mechanism"], got["sasl.username"], got["sasl.password"]) == ("SCRAM-SHA-256", "u", "p")


def test_a_token_is_got_by_openid_connect() -> None:
    sasl = {"mechanism": "OAUTHBEARER", "token_url": "https://idp/token", "client_id": "c", "client_secret": "s"}

    got = settings(sasl=sasl)

    assert got["sasl.oauthbearer.method"] == "oidc"
    assert got["sasl.oauthbearer.client.secret"] == "s"


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_setting_that_would_break_the_promise_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(client={name: "x"})

    assert REFUSED[name] in str(caught.value)


def test_settings_by_their_own_names_win() -> None:
    got = settings(client={"linger.ms": 7, "reconnect.backoff.max.ms": 1})

    assert (got["linger.ms"], got["reconnect.backoff.max.ms"]) == (7, 1)


def test_a_reader_s_settings_are_bounded_and_those_of_the_file_win() -> None:
    section = {"brokers": ["k"], "topic": "t", "client": {"fetch.max.bytes": 7 << 20}}

    got = reading(KafkaSource.model_validate(section), "me", "orders")

    assert got["fetch.max.bytes"] == 7 << 20
    assert (got["queued.max.messages.kbytes"], got["isolation.level"], got["group.id"]) == (
        4096,
        "read_committed",
        "orders",
    )


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_among_the_settings_is_never_shown(name: str) -> None:
    config = KafkaClientConfig.model_validate({"brokers": ["k"], "client": {name: "hidden!"}})

    assert "hidden!" not in repr(config)
    assert isinstance(config.client[name], SecretStr)
    assert config.settings("test")[name] == "hidden!"


def test_a_url_says_what_a_section_says() -> None:
    got = from_url("kafka://u:p%40@a:9093,b/orders?mechanism=PLAIN&tls=require&linger.ms=5&delivery=idempotent")

    assert got == {
        "brokers": ["a:9093", "b"],
        "sasl": {"username": "u", "password": "p@", "mechanism": "PLAIN"},
        "tls": {"mode": "require"},
        "client": {"linger.ms": "5"},
        "topic": "orders",
        "delivery": "idempotent",
    }


def test_an_option_that_a_url_does_not_have_is_named() -> None:
    with pytest.raises(Fatal, match="no option 'colour'"):
        from_url("kafka://a?colour=red")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_login_needs_user_and_password(mechanism: str) -> None:
    with pytest.raises(ValidationError, match="needs `username` and `password`"):
        settings(sasl={"mechanism": mechanism, "username": "u"})


def test_prefer_is_no_mode_of_kafkas() -> None:
    with pytest.raises(ValidationError, match="cannot be asked"):
        settings(tls={"mode": "prefer"})
