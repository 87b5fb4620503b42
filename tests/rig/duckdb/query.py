"""Runs one statement in DuckDB over the tables in a directory; prints one JSON object for each row.

Usage: query.py DIRECTORY STATEMENT, with the tables sessions, exchanges and effects.
"""

import json
import sys

import duckdb

directory, statement = sys.argv[1:]
connection = duckdb.connect()
connection.execute("SET autoinstall_known_extensions = false")
for table in ("sessions", "exchanges", "effects"):
    connection.execute(
        f"CREATE VIEW {table} AS SELECT * FROM read_parquet("
        f"'{directory}/{table}/*/*/*.parquet', hive_partitioning = true)"
    )
rows = connection.execute(statement)
names = [column[0] for column in rows.description]
for row in rows.fetchall():
    print(json.dumps(dict(zip(names, row)), default=str))
