"""`users` says who may log in to the status page; `audit` lists what people did and looked at there."""

import getpass
import sys
from typing import Annotated

import typer

from node.cli.console import (
    ConfigOption,
    JsonOption,
    operator,
    print_json,
    print_table,
    reading,
    say,
    settings_from,
    usage,
)
from node.errors import Refused
from node.operate.texts import age, local_time, moment_before, now_utc, one_line, zone_of
from storage.audit import AuditEntry
from storage.roles import Role
from storage.users import user_name

users_app = typer.Typer(no_args_is_help=True, help="Who may log in to the status page, and in which role.")
audit_app = typer.Typer(no_args_is_help=True, help="What people did and looked at on the status page.")

Name = Annotated[str, typer.Argument(help="The name to log in with; upper case counts as lower case.", metavar="NAME")]
FromInput = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of standard input.")
]


@users_app.command("add")
def add(
    context: typer.Context,
    name: Name,
    role: Annotated[Role, typer.Option("--role", "-r", help="What this person may do.")] = Role.VIEWER,
    full_name: Annotated[str, typer.Option("--full-name", help="As it is written under a release.")] = "",
    password_stdin: FromInput = False,
    config: ConfigOption = None,
) -> None:
    """Let a person log in; the password is asked for twice."""
    from node.bootstrap.store import open_store

    name = _name(name)
    with open_store(settings_from(context, config)) as node:
        if node.users.find(name) is not None:
            raise Refused(f"there is a user {name} already; `syncect users passwd {name}` gives a new password")
        node.users.add(name, " ".join(one_line(full_name).split()), role, _secret(password_stdin), now_utc())
        node.audit.record(_deed("add user", f"{name} as {role}"))
    say(f"{name} can log in as {role}")


@users_app.command("ls")
def list_users(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List who may log in."""
    with reading(context, config) as node:
        users = node.users.all()
        browsers = {user.name: node.users.session_count(user.name) for user in users}
    now = now_utc()
    if as_json:
        print_json(
            [
                {
                    "name": user.name,
                    "full_name": user.full_name,
                    "role": user.role,
                    "created_at": user.created_at,
                    "changed_at": user.changed_at,
                    "failures": user.failures,
                    "locked_until": user.locked_until,
                    "sessions": browsers[user.name],
                }
                for user in users
            ]
        )
    elif users:
        rows = [
            (
                user.name,
                user.role,
                f"{age(user.changed_at)} ago",
                str(browsers[user.name]),
                "locked" if user.is_locked(now) else "",
                user.full_name,
            )
            for user in users
        ]
        print_table(["NAME", "ROLE", "PASSWORD", "SESSIONS", "STATE", "FULL NAME"], rows)
    else:
        say("nobody can log in yet; `syncect users add NAME --role admin` makes the first user")


@users_app.command("passwd")
def set_password(
    context: typer.Context, name: Name, password_stdin: FromInput = False, config: ConfigOption = None
) -> None:
    """Give a person a new password; it ends the person's sessions and opens a locked name."""
    from node.bootstrap.store import open_store

    name = _name(name)
    with open_store(settings_from(context, config)) as node:
        node.users.require(name)
        node.users.set_password(name, _secret(password_stdin), now_utc())
        node.audit.record(_deed("new password", name))
    say(f"{name} has a new password and is logged in nowhere")


@users_app.command("rm")
def remove(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Also the last admin.")] = False,
    config: ConfigOption = None,
) -> None:
    """Let a person log in no more; it ends the person's sessions."""
    from node.bootstrap.store import open_store

    name = _name(name)
    with open_store(settings_from(context, config)) as node:
        node.users.remove(name, even_last_admin=yes)
        node.audit.record(_deed("remove user", name))
    say(f"{name} can log in no more")


@audit_app.command("ls")
def list_audit(
    context: typer.Context,
    since: Annotated[str, typer.Option("--since", help="Not older: 2h, 3d, or a date.", metavar="TIME")] = "",
    who: Annotated[str, typer.Option("--who", help="Of this person.", metavar="NAME")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0 lists all.")] = 200,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List what people did and looked at, the newest first."""
    settings = settings_from(context, config)
    zone = zone_of(settings)
    with usage():
        begin = moment_before(since, now_utc(), zone) if since else None
    with reading(context, config) as node:
        entries = node.audit.newest(since=begin, who=who.strip().lower(), limit=limit)
    if as_json:
        print_json(entries)
    elif entries:
        columns = ["TIME", "WHO", "FROM", "ACTION", "CASE", "OUTCOME", "DETAIL"]
        print_table(columns, [(local_time(one.at, zone), *_cells(one)) for one in entries])
    else:
        say("nothing was noted")


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(users_app, name="users")
    app.add_typer(audit_app, name="audit")


def _cells(one: AuditEntry) -> tuple[str, ...]:
    return one.who or "unknown", one.address, one.action, one.case_id, one.outcome, one.detail


def _name(text: str) -> str:
    try:
        return user_name(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _secret(from_input: bool) -> str:
    """The hash of the password that is typed, twice and without an echo, or of the first line of standard input."""
    from node.web.passwords import check_password, hash_password

    if from_input:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("The same password again: ") != password:
            raise typer.BadParameter("the two passwords differ")
    else:
        raise typer.BadParameter("there is no terminal to ask for the password; give --password-stdin")
    try:
        check_password(password)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return hash_password(password)


def _deed(action: str, detail: str) -> AuditEntry:
    """What somebody did on the machine itself."""
    return AuditEntry(now_utc(), operator()[:64], "local", action, "ok", detail=detail)
