"""`syncect jobs` shows what became of every series, and why, and does what a person decides about it."""

import typer

from node.cli import jobs_logs, jobs_ls, jobs_show, jobs_verbs

app = typer.Typer(no_args_is_help=True, help="What became of every series, and why.")

app.command("ls")(jobs_ls.list_jobs)
for _reader in (jobs_show.show, jobs_show.why, jobs_show.events, jobs_logs.logs):
    app.command(_reader.__name__)(_reader)
for _verb in (
    *(jobs_verbs.retry, jobs_verbs.cancel, jobs_verbs.reopen, jobs_verbs.release, jobs_verbs.reject),
    *(jobs_verbs.resend, jobs_verbs.acknowledge, jobs_verbs.complete, jobs_verbs.drop, jobs_verbs.purge),
    jobs_verbs.priority,
):
    app.command(_verb.__name__)(_verb)
