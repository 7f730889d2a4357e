"""A real PgBouncer in transaction mode in front of the test server, like Neon's pooled hosts."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from latchkey.testing.postgresql import OWNER, OWNER_PASSWORD, PostgreSQL
from latchkey.testing.processes import free_port, supervised, unprivileged_account, unprivileged_folder

SETTINGS = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 2
max_client_conn = 100
"""
"""Two shared server connections: state that a transaction leaves behind would reach another client."""


@contextmanager
def pgbouncer(server: PostgreSQL, log: Path) -> Iterator[PostgreSQL]:
    """Return the URL of the server through PgBouncer. Skips the test if PgBouncer is not installed."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("needs the program `pgbouncer`: install your system's package of that name")
    with unprivileged_folder() as folder:
        port, users, settings = free_port(), folder / "users.txt", folder / "pgbouncer.ini"
        known = {server.admin.username: server.admin.password or "", OWNER: OWNER_PASSWORD}
        users.write_text("".join(f'"{name}" "{password}"\n' for name, password in known.items()))
        address = {"host": server.admin.host or "127.0.0.1", "server_port": server.admin.port or 5432}
        settings.write_text(SETTINGS.format(**address, port=port, users=users))
        if user := unprivileged_account().user:
            shutil.chown(users, user)
        with supervised([program, str(settings)], folder, log, ready="process up", signal="KILL"):
            yield replace(server, admin=server.admin.set(host="127.0.0.1", port=port))
