"""The publication: made, extended, checked, and never one that would break the application's updates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from cdcsync.change import Column, Table
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.ports import Wanted
from cdcsync.postgres.catalogue import Catalogue, TableInfo
from cdcsync.postgres.config import Partitions, PublicationMode
from cdcsync.postgres.errors import verdict
from cdcsync.postgres.types import column_type

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cdcsync.ports import Selection, SourceContext
    from cdcsync.postgres.catalogue import Attribute, TypeInfo
    from cdcsync.postgres.config import PostgresSource
    from cdcsync.postgres.connection import Connection

GENERATED_VERSION: Final = 180000
MARK: Final = "made by cdcsync for pipeline "
INSERTS: Final = "_inserts"
"""Ends the name of the second publication: of tables that have no replica identity and are only appended."""


@dataclass(frozen=True, slots=True)
class Published:
    """One table as a publication shows it."""

    info: TableInfo
    wanted: Wanted
    columns: tuple[Attribute, ...]
    """Those that the log carries, in the table's order."""
    row_filter: str | None = None

    def table(self, types: Mapping[int, TypeInfo]) -> Table:
        """Return it as the log will show it."""
        columns = tuple(
            Column(
                column.name,
                column_type(column.type, column.modifier, types),
                nullable=column.nullable,
                generated=bool(column.generated),
                initial=column.initial(column_type(column.type, column.modifier, types)),
            )
            for column in self.columns
        )
        names = {column.name for column in self.columns}
        key = self.info.key if names.issuperset(self.info.key) else ()
        return Table(self.info.schema, self.info.name, columns, key)


@dataclass(frozen=True, slots=True)
class Publications:
    """What a stream reads."""

    names: tuple[str, ...]
    tables: tuple[Published, ...]
    joining: tuple[TableInfo, ...] = ()
    """New in the mapping, with rows: to be published once it is stored that their rows are to be read."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a table cannot be published as the pipeline wants it."""

    subject: str
    message: str
    remedy: str


def select(catalogue: Catalogue, selection: Selection, partitions: Partitions) -> list[tuple[TableInfo, Wanted]]:
    """Return the tables that the mapping names, a partitioned one by its root or by its leaves."""
    names = catalogue.names()
    found = {table.oid: wanted for table in names if (wanted := selection.wants(table.schema, table.name)) is not None}
    roots = {table.oid for table in names if table.kind == "p" and table.oid in found}
    oids = [
        table.oid
        for table in names
        if table.oid in found
        and (table.kind == "r" if partitions is Partitions.LEAF else not roots.intersection(table.ancestors))
    ]
    return [(table, found[table.oid]) for table in catalogue.tables(oids)]


def refusals(tables: Sequence[tuple[TableInfo, Wanted]], version: int) -> list[Refusal]:
    """Return every table that must not or cannot be published, with the SQL that mends it."""
    refused: list[Refusal] = []
    for table, wanted in tables:
        for each in (table, *table.leaves):
            name = each.identifier.as_string()
            if each.persistence == "u":
                message = "is unlogged: its changes are not in the WAL"
                refused.append(Refusal(each.qualified, message, f"ALTER TABLE {name} SET LOGGED;"))
            elif wanted is Wanted.KEYED and not each.has_identity:
                message = "has no replica identity: once published, the application's UPDATE and DELETE on it fail"
                refused.append(Refusal(each.qualified, message, identity_remedy(each)))
            elif each.identity == "f" and version >= GENERATED_VERSION and _has_virtual(each):
                message = "has REPLICA IDENTITY FULL and a virtual generated column: once published, its UPDATE fails"
                refused.append(Refusal(each.qualified, message, f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT;"))
    return refused


def identity_remedy(table: TableInfo) -> str:
    """Return the ALTER TABLE that gives the table a replica identity, the cheapest that there is."""
    start = f"ALTER TABLE {table.identifier.as_string()} REPLICA IDENTITY"
    if table.primary_key:
        return f"{start} DEFAULT;"
    if table.unique_keys:
        return f"{start} USING INDEX {sql.Identifier(table.unique_keys[0][0]).as_string()};"
    return f"{start} FULL;  -- or, better, ADD PRIMARY KEY; or map it insert-only with `key: none`"


def ensure(connection: Connection, config: PostgresSource, context: SourceContext, *, fresh: bool) -> Publications:
    """Make, extend or check what the pipeline reads; return it as it is then.

    `fresh`: no position is stored. Otherwise a table joins at once only while it is empty, under a lock: rows that it
    had before are in no log, and it is `joining`. Raises Fatal, before anything is changed, when a table cannot be
    published.
    """
    catalogue = Catalogue(connection)
    tables = _selected(catalogue, config, context)
    version = connection.info.server_version
    main = config.publication_of(context.pipeline)
    if config.publication.mode is PublicationMode.EXISTING:
        return covering(connection, (main,), tables, config)
    everything = config.publication.mode is PublicationMode.ALL_TABLES
    checked = _all(catalogue, tables) if everything else tables
    _refuse(refusals(checked, version), "cannot be published")
    wanted = {main: [table for table, _ in tables if table.has_identity]}
    inserts = [table for table, _ in tables if not table.has_identity]
    if inserts and not everything:
        wanted[main + INSERTS] = inserts
    existing = describe(connection, tuple(wanted))
    keyed = {table.oid for table, how in tables if how is Wanted.KEYED}
    joining: list[TableInfo] = []
    try:
        with connection.transaction():
            for name, members in wanted.items():
                if name not in existing and not (members or everything):
                    continue
                if name not in existing:
                    if not fresh:
                        _refuse_missing(name)
                    _create(connection, name, members, config, context.pipeline, everything=everything)
                elif not everything:
                    joining += _extend(connection, name, members, keyed, fresh=fresh)
    except psycopg.Error as error:
        raise _denied(error, main) from error
    names = tuple(name for name, members in wanted.items() if members or everything)
    later = {table.oid for table in joining}
    published = covering(connection, names, [each for each in tables if each[0].oid not in later], config)
    return replace(published, joining=tuple(joining))


def join(connection: Connection, publications: Publications) -> None:
    """Publish the tables that are joining. Raises Transient and Fatal."""
    name = publications.names[0]
    try:
        connection.execute(_addition(name, publications.joining))
    except psycopg.Error as error:
        raise _denied(error, name) from error


def existing(connection: Connection, config: PostgresSource, context: SourceContext) -> Publications:
    """Return what the pipeline reads as it is, changing nothing. Raises Fatal with all that is missing in it."""
    tables = _selected(Catalogue(connection), config, context)
    main = config.publication_of(context.pipeline)
    if config.publication.mode is not PublicationMode.FILTERED:
        return covering(connection, (main,), tables, config)
    with_identity = {table.has_identity for table, _ in tables}
    names = tuple(name for name, wanted in ((main, True), (main + INSERTS, False)) if wanted in with_identity)
    return covering(connection, names, tables, config)


def _selected(catalogue: Catalogue, config: PostgresSource, context: SourceContext) -> list[tuple[TableInfo, Wanted]]:
    """Return the tables that the mapping names. Raises Fatal when there are none."""
    tables = select(catalogue, context.selection, config.partitions)
    if not tables:
        msg = f"the mapping names no table of database {config.database}"
        hint = "check `from`; `partitions: leaf` takes partitions by their own names"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    return tables


def shown(connection: Connection, config: PostgresSource, context: SourceContext) -> list[Published]:
    """Return the mapping's tables as the log will show them, changing nothing.

    By the publication where it is there and covers them, else as `ensure` would publish them.
    """
    tables = select(Catalogue(connection), context.selection, config.partitions)
    version = connection.info.server_version
    main = config.publication_of(context.pipeline)
    existing = describe(connection, (main, main + INSERTS))
    members = _members(connection, list(existing))
    published = []
    for table, wanted in tables:
        found = [member for member in members if member[1:3] == (table.schema, table.name)]
        everything = ("", "", "", [column.name for column in table.columns], None)
        published.append(_published(table, wanted, found or [everything], version))
    return published


def describe(connection: Connection, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what pg_publication says of those that exist: what they publish, and whether cdcsync made them."""
    rows = _rows(
        connection,
        "SELECT p.pubname, to_jsonb(p), obj_description(p.oid, 'pg_publication') FROM pg_catalog.pg_publication p "
        "WHERE p.pubname = ANY(%s)",
        [list(names)],
    )
    return {name: {**fields, "mark": comment or ""} for name, fields, comment in rows}


def covering(
    connection: Connection,
    names: Sequence[str],
    tables: Sequence[tuple[TableInfo, Wanted]],
    config: PostgresSource,
) -> Publications:
    """Return the publications as they are. Raises Fatal with all that is missing in them."""
    found = describe(connection, names)
    missing = [
        Refusal(f"publication {name}", "does not exist", _create_remedy(name, tables))
        for name in names
        if name not in found
    ]
    _refuse(missing, "is missing")
    members = _members(connection, names)
    problems: list[Refusal] = []
    published: list[Published] = []
    for table, wanted in tables:
        shown = [member for member in members if member[1:3] == (table.schema, table.name)]
        problems += _gaps(table, wanted, shown, found, names[0])
        if shown:
            published.append(_published(table, wanted, shown, connection.info.server_version))
    problems += _shape(found, tables, config)
    _refuse(problems, "is not published as the mapping needs it")
    return Publications(tuple(names), tuple(published))


def refuse_unpublished(connection: Connection, publications: Publications) -> None:
    """Raise Fatal where one of the tables is there by name and no longer published.

    A tool that changes a schema by a copy and two renames leaves the published table under another name.
    """
    published = {member[1:3] for member in _members(connection, publications.names)}
    missing = {(each.info.schema, each.info.name) for each in publications.tables} - published
    there = Catalogue(connection).names() if missing else []
    gone = sorted(f"{table.schema}.{table.name}" for table in there if (table.schema, table.name) in missing)
    if gone:
        msg = f"no longer in publication {', '.join(publications.names)}: {', '.join(gone)}"
        hint = (
            "if it was taken out, add it again; if another table has its name now, changes since then are not in the "
            "log: `cdcsync drop`, empty the target, and run again for a new copy"
        )
        raise Fatal(msg, hint=hint)


def has_newcomers(connection: Connection, config: PostgresSource, selection: Selection, known: Publications) -> bool:
    """Return whether tables that the mapping names were made since, which the pipeline may publish by itself."""
    if config.publication.mode is not PublicationMode.FILTERED:
        return False
    catalogue = Catalogue(connection)
    there = {each.info.qualified for each in known.tables} | {each.qualified for each in known.joining}
    wanted = (each for each in catalogue.names() if selection.wants(each.schema, each.name) is not None)
    if all(each.qualified in there for each in wanted):
        return False
    new = [each for each in select(catalogue, selection, config.partitions) if each[0].qualified not in there]
    return bool(new) and not refusals(new, connection.info.server_version)


def _gaps(
    table: TableInfo, wanted: Wanted, shown: list[tuple[Any, ...]], found: dict[str, dict[str, Any]], main: str
) -> list[Refusal]:
    """Return what keeps changes of this table out of the publications."""
    name, target = table.identifier.as_string(), sql.Identifier(main).as_string()
    if not shown:
        return [Refusal(table.qualified, "is not in the publication", f"ALTER PUBLICATION {target} ADD TABLE {name};")]
    operations = {operation for member in shown for operation in _published_operations(found[member[0]])}
    needed = {"insert"} if wanted is Wanted.APPENDED else {"insert", "update", "delete"}
    gaps = []
    if needed - operations:
        remedy = f"ALTER PUBLICATION {target} SET (publish = 'insert, update, delete, truncate');"
        gaps.append(Refusal(table.qualified, f"{', '.join(sorted(needed - operations))} is not published", remedy))
    columns = set(shown[0][3])
    unlisted = [column for column in table.key if column not in columns]
    if unlisted and wanted is Wanted.KEYED:
        message = f"the publication's column list lacks the key: {', '.join(unlisted)}"
        gaps.append(Refusal(table.qualified, message, f"ALTER PUBLICATION {target} SET TABLE {name};"))
    if operations & {"update", "delete"} and not all(each.has_identity for each in (table, *table.leaves)):
        message = "is published without a replica identity: the application's UPDATE and DELETE on it fail"
        gaps.append(Refusal(table.qualified, message, identity_remedy(table)))
    return gaps


def _shape(
    found: dict[str, dict[str, Any]], tables: Sequence[tuple[TableInfo, Wanted]], config: PostgresSource
) -> list[Refusal]:
    """Return what is wrong with the publications as a whole."""
    via_root = config.partitions is Partitions.ROOT
    if not any(table.kind == "p" or table.is_partition for table, _ in tables):
        return []
    return [
        Refusal(
            f"publication {name}",
            f"publishes partitions by their {'leaf' if via_root else 'root'}, the pipeline wants the other",
            f"ALTER PUBLICATION {sql.Identifier(name).as_string()} SET "
            f"(publish_via_partition_root = {str(via_root).lower()});",
        )
        for name, fields in found.items()
        if fields["pubviaroot"] is not via_root
    ]


def _published(table: TableInfo, wanted: Wanted, shown: list[tuple[Any, ...]], version: int) -> Published:
    listed = set(shown[0][3])
    columns = tuple(
        column
        for column in table.columns
        if column.name in listed
        and (not column.generated or (version >= GENERATED_VERSION and column.generated == "s"))
    )
    filters = [member[4] for member in shown]
    row_filter = None if None in filters else " OR ".join(f"({text})" for text in filters)
    return Published(table, wanted, columns, row_filter)


def _members(connection: Connection, names: Sequence[str]) -> list[tuple[Any, ...]]:
    return _rows(
        connection,
        "SELECT pubname, schemaname, tablename, attnames::text[], rowfilter FROM pg_catalog.pg_publication_tables "
        "WHERE pubname = ANY(%s) ORDER BY 1, 2, 3",
        [list(names)],
    )


def _create(
    connection: Connection,
    name: str,
    members: Sequence[TableInfo],
    config: PostgresSource,
    pipeline: str,
    *,
    everything: bool,
) -> None:
    publish = "insert, truncate" if name.endswith(INSERTS) else "insert, update, delete, truncate"
    options: list[sql.Composable] = [
        sql.SQL("publish = {}").format(publish),
        sql.SQL("publish_via_partition_root = {}").format(config.partitions is Partitions.ROOT),
    ]
    if connection.info.server_version >= GENERATED_VERSION:
        options.append(sql.SQL("publish_generated_columns = stored"))
    scope = sql.SQL("ALL TABLES") if everything else sql.SQL("TABLE ") + _listed(members)
    connection.execute(
        sql.SQL("CREATE PUBLICATION {} FOR {} WITH ({})").format(
            sql.Identifier(name), scope, sql.SQL(", ").join(options)
        )
    )
    connection.execute(sql.SQL("COMMENT ON PUBLICATION {} IS {}").format(sql.Identifier(name), MARK + pipeline))


def _extend(
    connection: Connection, name: str, members: Sequence[TableInfo], keyed: Collection[int], *, fresh: bool
) -> list[TableInfo]:
    """Add the tables that are missing; with a position stored only those that are empty. Return the others.

    Rows of a table without a key cannot be told from those of the log: it is refused.
    """
    present = {(schema, table) for _, schema, table, *_ in _members(connection, [name])}
    missing = [table for table in members if (table.schema, table.name) not in present]
    joining: list[TableInfo] = []
    if missing and not fresh:
        joining = [table for table in missing if _has_rows(connection, table)]
        empty = [table for table in missing if table not in joining]
        if empty:
            connection.execute("SET LOCAL lock_timeout = '5s'")
            connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(_listed(empty, only=False)))
            joining += [table for table in empty if _has_rows(connection, table)]
        missing = [table for table in empty if table not in joining]
        bare = [table for table in joining if table.oid not in keyed]
        message = "is new in the mapping, has no key, and has rows, which are in no log"
        _refuse(
            [Refusal(table.qualified, message, _join_remedy(name, bare)) for table in bare],
            "cannot join a running pipeline",
        )
    if missing:
        connection.execute(_addition(name, missing))
    return joining


def _addition(name: str, tables: Sequence[TableInfo]) -> sql.Composed:
    return sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(sql.Identifier(name), _listed(tables))


def _join_remedy(name: str, tables: Sequence[TableInfo]) -> str:
    added = _addition(name, tables).as_string()
    return f"{added};  -- if changes from now on suffice; else `cdcsync drop`, and copy everything again"


def _has_virtual(table: TableInfo) -> bool:
    return any(column.generated == "v" for column in table.columns)


def _has_rows(connection: Connection, table: TableInfo) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(table.identifier)
    row = connection.execute(query).fetchone()
    return row is not None and bool(row[0])


def _listed(tables: Sequence[TableInfo], *, only: bool = True) -> sql.Composed:
    """ONLY keeps the children of plain inheritance out; a partitioned table takes no ONLY's meaning."""
    word = sql.SQL("ONLY ") if only else sql.SQL("")
    return sql.SQL(", ").join((word if table.kind == "r" else sql.SQL("")) + table.identifier for table in tables)


def _all(catalogue: Catalogue, tables: Sequence[tuple[TableInfo, Wanted]]) -> list[tuple[TableInfo, Wanted]]:
    """FOR ALL TABLES publishes updates of every permanent table, wanted or not."""
    wanted = {table.oid for table, _ in tables}
    oids = [table.oid for table in catalogue.names() if table.persistence == "p" or table.oid in wanted]
    return [(table, Wanted.KEYED) for table in catalogue.tables(oids)]


def _published_operations(fields: dict[str, Any]) -> set[str]:
    return {operation for operation in ("insert", "update", "delete", "truncate") if fields[f"pub{operation}"]}


def _refuse(problems: Sequence[Refusal], what: str) -> None:
    if not problems:
        return
    subjects = "; ".join(f"{problem.subject}: {problem.message}" for problem in problems)
    remedies = "\n     ".join(dict.fromkeys(problem.remedy for problem in problems))
    msg = f"{problems[0].subject if len(problems) == 1 else f'{len(problems)} tables'} {what}: {subjects}"
    raise Fatal(msg, hint=remedies)


def _refuse_missing(name: str) -> None:
    msg = (
        f"publication {name} does not exist, though the pipeline has a position: changes since it was dropped are lost"
    )
    raise Fatal(msg, hint="`cdcsync drop` removes what is left, then the next run copies everything again")


def _create_remedy(name: str, tables: Sequence[tuple[TableInfo, Wanted]]) -> str:
    listed = _listed([table for table, _ in tables]).as_string()
    return f"CREATE PUBLICATION {sql.Identifier(name).as_string()} FOR TABLE {listed};"


def _denied(error: psycopg.Error, name: str) -> Exception:
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        msg = f"publication {name}: {error.diag.message_primary}"
        hint = (
            "let the tables' owner make it (`cdcsync check` prints the statement) and set "
            "`publication: {mode: existing}`, or GRANT the owner's role and CREATE ON DATABASE to this user"
        )
        return Fatal(msg, hint=hint, status=ExitStatus.PERMISSION)
    return verdict(error, End.SOURCE, f"publication {name}")


def _rows(connection: Connection, query: str, params: list[object]) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(query.encode(), params).fetchall()
    except psycopg.Error as error:
        raise verdict(error, End.SOURCE, "reading the publications") from error
