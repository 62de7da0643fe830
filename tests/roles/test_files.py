"""`deploy/acl` is what `batchling acl` prints, and the command's words reach the rules."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from batchling_client.cli.acl import acl
from batchling_client.operate.redis_roles import Role
from batchling_client.wire.keys import KEYSPACE, Access

ACL = Path(__file__).parents[2] / "deploy" / "acl"


def printed(*words: str, typed: str = "", **settings: str) -> str:
    done = CliRunner(env={"BATCHLING_NAMESPACE": None, **settings}).invoke(
        acl, [*map(str, words)], input=typed
    )
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("role", Role)
def test_the_file_of_a_role_is_what_the_command_prints(role: Role) -> None:
    assert (ACL / f"{role}.acl").read_text(encoding="ascii") == printed(role)


def test_there_is_no_file_of_another_role() -> None:
    assert {path.stem for path in ACL.glob("*.acl")} == {*Role}


@pytest.mark.parametrize("role", Role)
def test_every_key_and_channel_is_the_namespaces_own(role: Role) -> None:
    line = printed(role, BATCHLING_NAMESPACE="team-a")

    named = [word.rstrip(")") for word in line.split() if word.startswith(("~", "&", "%"))]
    assert named
    assert all("{team-a}" in word or ":celery:team-a:" in word for word in named)
    assert "default" not in line


def test_a_password_is_printed_as_its_digest_only() -> None:
    line = printed("client", "--user", "jo", "--password-stdin", typed="s3cret\n")

    assert line.startswith(f"user jo on #{hashlib.sha256(b's3cret').hexdigest()} ")
    assert "s3cret" not in line


def test_without_a_password_nobody_can_log_in() -> None:
    assert not {"nopass", ">", "#"}.intersection(printed("client").split())


@pytest.mark.parametrize("words", [("client", "--user", "a b"), ("client", "--user", ""), ("boss",)])
def test_a_name_that_no_user_can_have_and_an_unknown_role_are_refused(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(acl, words).exit_code == 2


def test_no_dashboard_reads_a_prompt_an_answer_or_a_credential() -> None:
    for kind in KEYSPACE:
        if kind.word in ("rows", "result", "credential", "request", "run_requests"):
            assert kind.dashboard is Access.NONE
