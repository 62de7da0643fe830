"""The command `acl`: rules of Redis users, for an operator to put into an ACL file."""

from __future__ import annotations

import sys

import click

from .. import settings
from ..operate.redis_roles import ABOUT, RedisUser, Role, UnusableName

_ROLES = "\n".join(f"    {role.value:<11}{about}" for role, about in ABOUT.items())


@click.command(
    short_help="Print the rules of a Redis user.",
    help=f"""Print a user of Redis for ROLE, as a line of an ACL file (`aclfile` in redis.conf). Redis or Valkey 7.0.

    \b
{_ROLES}

    The keys are those of BATCHLING_NAMESPACE. Without --password-stdin nobody can log in as the user until
    `ACL SETUSER NAME >PASSWORD`.
    """,
)
@click.argument("role", type=click.Choice([role.value for role in Role]), metavar="ROLE")
@click.option("--user", "name", metavar="NAME", help="Name of the user (batchling-ROLE).")
@click.option("--password-stdin", is_flag=True, help="Read the user's password from the standard input.")
@click.option(
    "--database", default=0, show_default=True, help="Number of the database in BATCHLING_REDIS_URL."
)
def acl(role: str, name: str | None, database: int, *, password_stdin: bool) -> None:
    """Print the line of a user."""
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    if password == "":
        raise click.UsageError("the standard input holds no password")
    user = RedisUser(
        role=Role(role),
        name=f"batchling-{role}" if name is None else name,
        namespace=settings.load().namespace,
        database=database,
        password=password,
    )
    try:
        click.echo(user.line())
    except UnusableName as error:
        raise click.UsageError(str(error)) from None
