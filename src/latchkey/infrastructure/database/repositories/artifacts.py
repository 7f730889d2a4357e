"""Artifacts and their versions in SQL. Listings do not read the content."""

from datetime import UTC, datetime
from itertools import product
from typing import Annotated, TypeVar

from msgspec import Meta, Struct
from msgspec.structs import asdict
from sqlalchemy import and_, bindparam, or_, select, update

from latchkey.domain.artifact import Artifact, ArtifactId, ArtifactType, ArtifactWithContent
from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import NotFound
from latchkey.domain.page import TURN_PAGE_BYTES, Page, Window
from latchkey.infrastructure.database.repositories.deletion import is_not_deleted
from latchkey.infrastructure.database.schema import artifact_versions as versions
from latchkey.infrastructure.database.schema import artifacts
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import Session, columns_of, insert_for_user, owned_by_user

_IS_MINE = (owned_by_user(artifacts), artifacts.c.deleted_at.is_(None), is_not_deleted(artifacts))
_SELECT = select(*columns_of(artifacts, Artifact)).where(*_IS_MINE)
_HAS_ID = artifacts.c.id == bindparam("key")
_BY_ID = _SELECT.where(_HAS_ID)
_BY_ID_FOR_UPDATE = _BY_ID.with_for_update(key_share=True)
_NEWEST = _SELECT.order_by(artifacts.c.updated_at.desc(), artifacts.c.id.desc()).limit(bindparam("limit"))
_IS_OLDER = or_(
    artifacts.c.updated_at < bindparam("before"),
    and_(artifacts.c.updated_at == bindparam("before"), artifacts.c.id < bindparam("before_id")),
)
_FILTERS = {
    "conversation": artifacts.c.conversation_id == bindparam("conversation"),
    "artifact_type": artifacts.c.artifact_type == bindparam("artifact_type"),
    "before": and_(artifacts.c.updated_at <= bindparam("before"), _IS_OLDER),
}
_PAGES = {
    names: _NEWEST.where(*(_FILTERS[name] for name in names))
    for flags in product((True, False), repeat=len(_FILTERS))
    for names in [tuple(name for name, used in zip(_FILTERS, flags, strict=True) if used)]
}

_VERSION_COLUMNS = (
    artifacts.c.id,
    artifacts.c.conversation_id,
    versions.c.turn_id,
    artifacts.c.artifact_type,
    versions.c.title,
    versions.c.version,
    artifacts.c.created_at,
    versions.c.created_at,
)
_JOINED = artifacts.join(
    versions, and_(versions.c.user_id == artifacts.c.user_id, versions.c.artifact_id == artifacts.c.id)
)
_VERSIONS = select(*_VERSION_COLUMNS).select_from(_JOINED).where(*_IS_MINE, owned_by_user(versions), _HAS_ID)
_NEWEST_VERSIONS = _VERSIONS.order_by(versions.c.version.desc()).limit(bindparam("limit"))
_NEWEST_VERSIONS_BEFORE = _NEWEST_VERSIONS.where(versions.c.version < bindparam("before"))
_WITH_CONTENT = _VERSIONS.add_columns(versions.c.content)
_CURRENT = _WITH_CONTENT.where(versions.c.version == artifacts.c.version)
_AT_VERSION = _WITH_CONTENT.where(versions.c.version == bindparam("version"))

_INSERT = insert_for_user(artifacts)
_INSERT_VERSION = insert_for_user(versions)
_UPDATE = update(artifacts).where(*_IS_MINE, _HAS_ID)
_DELETE = _UPDATE.values(deleted_at=bindparam("now"))


AnyArtifact = TypeVar("AnyArtifact", bound=Artifact)


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="artifacts"):
    """The last item of a page. The tag keeps cursors of different listings apart."""

    updated_at: Annotated[datetime, Meta(tz=False)]
    id: ArtifactId


class _VersionCursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="artifact versions"):
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]


class SqlArtifacts:
    """Artifacts, latest activity first. Those of a conversation outside the scope are not found."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, artifact: Artifact, content: str) -> None:
        self._check(artifact)
        await self._session.execute(_INSERT, **asdict(artifact))
        await self._add_version(artifact, content)

    async def get(self, id: ArtifactId, *, for_update: bool = False) -> Artifact:
        row = await self._session.fetch_row(_BY_ID_FOR_UPDATE if for_update else _BY_ID, key=id)
        return self._check(Artifact(*row) if row else None)

    async def get_content(self, id: ArtifactId, version: int | None) -> ArtifactWithContent:
        row = await (
            self._session.fetch_row(_CURRENT, key=id)
            if version is None
            else self._session.fetch_row(_AT_VERSION, key=id, version=version)
        )
        return self._check(ArtifactWithContent(*row) if row else None)

    async def page(
        self, conversation_id: ConversationId | None, artifact_type: ArtifactType | None, window: Window
    ) -> Page[Artifact]:
        scope = self._session.scope
        if not scope.includes(conversation_id or scope.conversation_id):
            raise NotFound.of("conversation")
        last = window.decode_cursor(_Cursor)
        filters = {
            "conversation": conversation_id or scope.conversation_id,
            "artifact_type": artifact_type,
            "before": last and last.updated_at.replace(tzinfo=UTC),
        }
        used = {name: value for name, value in filters.items() if value is not None}
        before_id = {"before_id": last.id} if last else {}
        rows = await self._session.fetch(_PAGES[tuple(used)], limit=window.limit + 1, **used, **before_id)
        max_bytes = TURN_PAGE_BYTES if scope.turn_id else None
        return window.to_page([Artifact(*row) for row in rows], key=_cursor_of, max_bytes=max_bytes)

    async def list_versions(self, id: ArtifactId, window: Window) -> Page[Artifact]:
        await self.get(id)
        last = window.decode_cursor(_VersionCursor)
        limit = window.limit + 1
        rows: list[Row] = await (
            self._session.fetch(_NEWEST_VERSIONS, key=id, limit=limit)
            if last is None
            else self._session.fetch(_NEWEST_VERSIONS_BEFORE, key=id, limit=limit, before=last.version)
        )
        return window.to_page([Artifact(*row) for row in rows], key=lambda artifact: _VersionCursor(artifact.version))

    async def add_version(self, artifact: Artifact, content: str) -> None:
        self._check(artifact)
        if not await self._session.execute(_UPDATE, key=artifact.id, **asdict(artifact)):
            raise NotFound.of("artifact")
        await self._add_version(artifact, content)

    async def delete(self, id: ArtifactId, now: datetime) -> None:
        await self.get(id)
        if not await self._session.execute(_DELETE, key=id, now=now):
            raise NotFound.of("artifact")

    async def _add_version(self, artifact: Artifact, content: str) -> None:
        await self._session.execute(
            _INSERT_VERSION,
            artifact_id=artifact.id,
            version=artifact.version,
            title=artifact.title,
            content=content,
            turn_id=artifact.turn_id,
            created_at=artifact.updated_at,
        )

    def _check(self, artifact: AnyArtifact | None) -> AnyArtifact:
        if artifact is None or not self._session.scope.includes(artifact.conversation_id):
            raise NotFound.of("artifact")
        return artifact


def _cursor_of(artifact: Artifact) -> _Cursor:
    return _Cursor(artifact.updated_at.replace(tzinfo=None), artifact.id)
