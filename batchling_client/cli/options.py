"""Options of several commands."""

import click

redis_url = click.option("--redis-url", metavar="URL", help="Instead of BATCHLING_REDIS_URL.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit = click.option("--limit", default=1000, show_default=True, help="How many to list.")
