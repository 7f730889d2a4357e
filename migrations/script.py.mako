"""${message}."""
<%
    imported = {"alembic": {"op"}}
    for line in (imports or "").splitlines():
        module, _, name = line.partition(" import ")
        imported.setdefault(module.removeprefix("from "), set()).add(name)

    def quoted(value):
        return repr(value).replace("'", '"')
%>
import sqlalchemy as sa
% for module, names in sorted(imported.items()):
${f"from {module} import {', '.join(sorted(names))}" if all(names) else module}
% endfor

revision = ${quoted(up_revision)}
down_revision = ${quoted(down_revision)}
branch_labels = ${quoted(branch_labels)}
depends_on = ${quoted(depends_on)}
# The oldest release that can use this schema, by the newest revision of that release. A revision that only adds tables,
# and columns that are nullable or have a default, keeps the value of the revision before. The rows that the new release
# writes must also be readable for the oldest one.
compatible_with = ${quoted(config.attributes.get("compatible_with", "…"))}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
