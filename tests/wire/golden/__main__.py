"""Writes the bytes of a new wire version: `REDIS_URL=unix:///... python -m tests.wire.golden`, on an empty Redis."""

from __future__ import annotations

import asyncio
import json
import os

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import Keys

from . import FILE, NAMESPACE, VERSION, Builder, dump, key_names, records, text


async def main() -> None:
    if FILE.exists():
        raise SystemExit(f"{FILE.name} stands: what a version wrote once is never written anew.")
    redis = connect(os.environ["REDIS_URL"])
    keys = Keys(NAMESPACE, VERSION)
    await Builder(redis, keys).build()
    deployment = await dump(redis, keys)
    found = {
        "records": {name: text(record) for name, record in records().items()},
        "key_names": key_names(VERSION),
        "deployment": deployment,
    }
    await redis.aclose()
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{FILE} is written: {len(deployment)} keys.")


asyncio.run(main())
