"""A pipeline's parts, made from its file: both ends, the mapping, the store, and what may not be joined."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, SecretStr

from cdcsync import connectors, control, logs
from cdcsync.change import in_epoch
from cdcsync.errors import ExitStatus, Fatal
from cdcsync.mapping.transform import Mapping
from cdcsync.pending import read_keys
from cdcsync.ports import Guarantee, SinkContext, SourceContext, Stored, Wanted
from cdcsync.rebuilding import beneath
from cdcsync.types import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdcsync.change import Position, Row, Table
    from cdcsync.config import PipelineConfig
    from cdcsync.connectors import Sharing, SinkSpec, SourceSpec, StoreSpec
    from cdcsync.lanes import Lanes
    from cdcsync.pipeline import Pipeline, Surroundings
    from cdcsync.ports import Source
    from cdcsync.rejected import DeadLetters
    from cdcsync.verify import Ends

BACK_OFF_MAX_S: Final = 30.0
POSITIONS_FILE: Final = "positions.db"


@dataclass(frozen=True, slots=True)
class Facts:
    """What both ends say of themselves at start."""

    source: str
    """The source's identity."""
    sink: str
    """The sink's."""
    tables: tuple[Table, ...]
    """The source tables that the mapping takes."""
    targets: tuple[Table, ...]
    """Their targets."""


class Assembly:
    """One pipeline's parts. Nothing connects before it is asked for."""

    def __init__(self, config: PipelineConfig, *, alone: bool = False) -> None:
        """Take the pipeline's file; `alone`: its source is not shared, whatever the file says."""
        self.config = config
        self._alone = alone
        self.mapping = Mapping(config.rules, config.secrets)
        self._known: Facts | None = None
        """What both ends said when the pipeline was made."""
        for section in (config.source, config.sink, config.positions):
            if section is not None:
                logs.hide(_secrets(section.config))
        logs.hide(secret.decode() for secret in config.secrets.values())

    @property
    def source(self) -> SourceSpec:
        """How to make the source."""
        spec = self.config.source.connector.source
        assert spec is not None  # noqa: S101  the config took the section for this role
        return spec

    @property
    def sink(self) -> SinkSpec:
        """How to make the sink."""
        spec = self.config.sink.connector.sink
        assert spec is not None  # noqa: S101  the config took the section for this role
        return spec

    @property
    def guarantee(self) -> Guarantee:
        """What the sink promises as it is configured."""
        return self.sink.guarantee(self.config.sink.config)

    @cached_property
    def store(self) -> tuple[StoreSpec, BaseModel]:
        """Where the position is kept, and that store's section: the sink's own where it keeps it."""
        if self.config.positions is not None:
            spec = self.config.positions.connector.store
            assert spec is not None  # noqa: S101  the config took the section for this role
            return spec, self.config.positions.config
        kept = self.config.sink.connector.store
        if self.guarantee is Guarantee.EXACTLY_ONCE and kept is not None:
            return kept, self.config.sink.config
        sqlite = connectors.load("sqlite").store
        if sqlite is None:
            raise Fatal(
                "the sqlite connector has no store", hint="name one under `positions:`", status=ExitStatus.CONFIG
            )
        return sqlite, sqlite.config.model_validate({"path": self.config.state / POSITIONS_FILE})

    @property
    def source_context(self) -> SourceContext:
        """What the source learns before anybody asked the sink who it is."""
        return SourceContext(self.config.name, self.mapping, self.config.state)

    def source_context_of(self, sink: str) -> SourceContext:
        """What the source learns where the sink's identity is known: it refuses a circle then."""
        return replace(self.source_context, sink=sink)

    def sink_context(self, facts: Facts | None = None) -> SinkContext:
        """What sink and store learn; without facts of the source, no more than whose they are."""
        if facts is None:
            return SinkContext(self.config.name, self.config.state)
        moves, follows = self.source.moves, lambda table: self.mapping.follows(beneath(table))
        return SinkContext(self.config.name, self.config.state, facts.targets, facts.source, moves, follows)

    def words(self) -> dict[str, str]:
        """Return what the pipeline joins, for logs and status."""
        systems = {"source": self.config.source.system, "sink": self.config.sink.system}
        return {**systems, "guarantee": self.guarantee.value}

    def facts(self) -> Facts:
        """Ask both ends who they are, and the source which tables it has. Raises Transient and Fatal."""
        section, context = self.config.source.config, self.source_context
        if self.source.look is not None:
            source, tables = self.source.look(section, context)
        else:
            source, tables = self.source.identity(section, context), self.source.tables(section, context)
        return Facts(
            source=source,
            sink=self.sink.identity(self.config.sink.config),
            tables=tuple(tables),
            targets=tuple(self.mapping.tables(tables)),
        )

    def letters(self) -> DeadLetters:
        """Return the dead letters, opened."""
        from cdcsync.rejected import DeadLetters  # noqa: PLC0415  brings sqlite along

        letters = DeadLetters(self.config.state, self.config.name)
        letters.open()
        return letters

    def make_state(self) -> None:
        """Make the state directory, for its owner alone. Raises Fatal when that is not permitted."""
        try:
            self.config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            msg = f"the state directory {self.config.state} cannot be made: {error.strerror}"
            hint = "set `state:` to a directory that this user may write"
            raise Fatal(msg, hint=hint, status=ExitStatus.PERMISSION) from error

    def runner(self, surroundings: Surroundings) -> Pipeline | Lanes:
        """Return what the daemon runs: the pipeline, or one for each lane that a group gives to this process.

        Raises Transient and Fatal.
        """
        if self.source.sharing is None:
            return self.pipeline(surroundings)
        facts = self._looked()
        group = self.source.sharing.group(self.config.source.config, self.source_context_of(facts.sink))
        if group is None:
            return self._made(facts, surroundings)
        from cdcsync.lanes import Lanes  # noqa: PLC0415  few pipelines have some

        self.refuse_local()
        self._refuse_alone()

        def make(lane: str, around: Surroundings) -> Pipeline:
            return self._made(facts, around, group.source(lane), lane)

        return Lanes(self.config.name, group, make, surroundings)

    def pipeline(self, surroundings: Surroundings, source: Source | None = None) -> Pipeline:
        """Return the pipeline, ready to run, from its own source or from a stretch of its log that ends.

        Raises Transient and Fatal.
        """
        return self._made(self._looked(), surroundings, source)

    def _looked(self) -> Facts:
        """Ask both ends, and refuse what cannot be joined."""
        facts = self._known = self.facts()
        self.refuse_missing(facts)
        self.refuse_itself(facts)
        self.refuse_names(facts)
        return facts

    def _made(self, facts: Facts, surroundings: Surroundings, source: Source | None = None, lane: str = "") -> Pipeline:
        from cdcsync.pipeline import OnRejected, Pipeline, Policy  # noqa: PLC0415  commands that only look do without
        from cdcsync.reader import Limits  # noqa: PLC0415

        context = replace(self.sink_context(facts), shared=bool(lane))
        sink = self.sink.make(self.config.sink.config, context)
        batch = self.config.batch
        return Pipeline(
            source or self.source.make(self.config.source.config, self.source_context_of(facts.sink)),
            Mapping(self.config.rules, self.config.secrets) if lane else self.mapping,
            sink,
            positions=None if self._keeps(sink) else self.store[0].make(self.store[1], context),
            letters=self.letters(),
            policy=Policy(
                name=self.config.name,
                lane=lane,
                on_rejected=OnRejected(self.config.on_rejected),
                heartbeat_s=self.config.heartbeat_s,
                reread=self.config.reread == "on",
                back_off_max_s=BACK_OFF_MAX_S,
                limits=Limits(changes_max=batch.changes_max, size_bytes_max=batch.bytes_max),
                targets=facts.targets,
            ),
            surroundings=surroundings,
        )

    def refuse_local(self) -> None:
        """Raise Fatal when lanes that go from process to process would have their positions in one process's files."""
        if self.config.positions is None and self.store[1] is not self.config.sink.config:
            hint = "name a store that all processes of the group see under `positions:`"
            raise Fatal("the positions would lie in this process's own files", hint=hint, status=ExitStatus.CONFIG)
        if self.sink.lone:
            msg = f"the {self.config.sink.system} sink has one writer, and a group has several"
            raise Fatal(msg, hint="leave `group` out: one process reads all partitions", status=ExitStatus.CONFIG)

    def _refuse_alone(self) -> None:
        """Raise Fatal when one process has read so far what a group would begin anew."""
        if self._stored("") is None or self.stored_by_lane():
            return
        msg = f"pipeline {self.config.name} has the position of one process, and none of a group's lanes"
        hint = f"print it by `cdcsync positions show {self.config.name}` without `group`, and set it with `group`"
        raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)

    def _keeps(self, sink: object) -> bool:
        """Return whether the sink keeps its position; a second store beside it would only disagree."""
        if not hasattr(sink, "positions"):
            return False
        if self.config.positions is not None:
            msg = f"the {self.config.sink.system} sink commits the position with its rows, and `positions` names another store"
            raise Fatal(msg, hint="remove `positions:`", status=ExitStatus.CONFIG)
        return True

    def refuse_missing(self, facts: Facts) -> None:
        """Raise Fatal when an entry of the mapping names one table and the source has none of that name."""
        missing = [] if self.source.late else self.mapping.missing(facts.tables)
        if missing:
            hint = "mend `from:`, or remove the entry when the table is gone for good"
            raise Fatal("\n".join(missing), hint=hint, status=ExitStatus.CONFIG)

    def misnamed(self, facts: Facts) -> list[str]:
        """Return a line for each name that the target does not take as it is."""
        from cdcsync.mapping.target_names import misnamed  # noqa: PLC0415  a start and `check` alone ask

        return misnamed(self.mapping, facts.tables, self.sink.names) if self.sink.names is not None else []

    def refuse_names(self, facts: Facts) -> None:
        """Raise Fatal when the target does not take a name of a table or column as it is."""
        lines = self.misnamed(facts)
        if lines:
            hint = "give another name by `to`, `rename` or `columns`, or leave the column out by `exclude`"
            raise Fatal("\n".join(lines), hint=hint, status=ExitStatus.CONFIG)

    def refuse_itself(self, facts: Facts) -> None:
        """Raise Fatal when a table would be written to itself."""
        if facts.sink != facts.source:
            return
        section = self.config.sink.config
        home, place = getattr(section, "schema_", ""), self.sink.home
        for table in facts.tables:
            for target in self.mapping.tables([table]):
                own = (target.schema or home, target.name)
                if (place(section, self.config.name, target) if place else own) == (table.schema, table.name):
                    msg = f"source and target are the same table: {table.qualified} in {facts.source}"
                    hint = "give the table another name or schema with `to:`, or name another database"
                    raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)

    @cached_property
    def _shared(self) -> Sharing | None:
        """How several processes share the source, where they do."""
        sharing = self.source.sharing
        if sharing is None or self._alone:
            return None
        return sharing if sharing.group(self.config.source.config, self.source_context) is not None else None

    @cached_property
    def lanes(self) -> list[str]:
        """The lanes of a source that several processes share, as it says now; else one without a name."""
        if self._shared is None:
            return [""]
        return self._shared.lanes(self.config.source.config, self.source_context)

    def stored(self) -> Stored | None:
        """Return what the store has, of all lanes as one; a source is asked only for the names of its lanes."""
        found = self.stored_by_lane()
        if self._shared is None or not found:
            return found.get("")
        whole = self._shared.whole([each.position for each in found.values()])
        return Stored(whole, max(each.epoch for each in found.values()))

    def stored_by_lane(self) -> dict[str, Stored]:
        """Return what the store has, by lane."""
        found = {lane: self._stored(lane) for lane in self.lanes}
        return {lane: each for lane, each in found.items() if each is not None}

    def _stored(self, lane: str) -> Stored | None:
        spec, section = self.store
        context = replace(self.sink_context(), lane=lane)
        if spec.look is not None:
            return spec.look(section, context)
        store = spec.make(section, context)
        try:
            store.open(lane)
            return store.load()
        finally:
            store.close()

    def put(self, position: Position) -> list[str]:
        """Store this position, in a new epoch; return what was done at the source, a line each."""
        before = self.stored()
        return self.move(in_epoch(position, max(position.epoch, before.epoch if before else 0) + 1))

    def move(self, position: Position) -> list[str]:
        """Store this position as it is, with a new fence, the source made ready first; return what was done there.

        Raises Fatal with OWNERSHIP while another process has the pipeline. Cut short in between, the source can be
        read from where the pipeline is, and from before it.
        """
        done = self._made_ready(position)
        spec, section = self.store
        for lane, part in [(lane, self._part(position, lane)) for lane in self.lanes]:
            spec.put(section, replace(self.sink_context(), lane=lane), part)
        return done

    def _part(self, position: Position, lane: str) -> Position:
        part = position if self._shared is None else self._shared.part(position, lane)
        if part is None:
            msg = f"the position says nothing of {lane}, which the pipeline reads"
            raise Fatal(msg, hint="`cdcsync positions show` prints one that is whole", status=ExitStatus.CONFIG)
        return part

    def _made_ready(self, position: Position) -> list[str]:
        """Let the source be opened at a position that it may have passed, holding the pipeline's lock."""
        log = self.source.log
        if log is None or log.go_back is None:
            return []
        store = self.store[0].make(self.store[1], self.sink_context())
        try:
            store.open("")
            return log.go_back(self.config.source.config, self.source_context, position)
        finally:
            store.close()

    def clear(self) -> bool:
        """Forget the stored position; return whether there was one."""
        spec, section = self.store
        lanes = dict.fromkeys([*self.lanes, ""])
        cleared = [spec.clear(section, replace(self.sink_context(), lane=lane)) for lane in lanes]
        return any(cleared)

    def to_be_read(self, names: Sequence[str]) -> list[str]:
        """Return the source tables that these words name. Raises Fatal for one without a key, whose rows cannot be told."""
        facts = self._known
        if facts is None:
            return []
        found = [table for name in names for table in self.chosen(facts, name)]
        bare = [table.qualified for table in found if self.mapping.wants(table.schema, table.name) is not Wanted.KEYED]
        if bare:
            msg = f"rows without a key cannot be written again: {', '.join(bare)}"
            raise Fatal(msg, hint="empty the target and copy everything again", status=ExitStatus.CONFIG)
        return [table.qualified for table in found]

    def keys_of(self, names: Sequence[str], given: Sequence[Any]) -> tuple[Row, ...]:
        """Return keys of the one table that is named, as the log has them. Raises Fatal when they are none of it."""
        tables = [table for table in (self._known.tables if self._known else ()) if table.qualified in names]
        if len(tables) != 1 or not given:
            raise Fatal("keys are of one table", hint="name one, and some keys of it", status=ExitStatus.CONFIG)
        (table,) = tables
        kinds = [table.columns[at].type.kind for at in table.key_at]
        try:
            return tuple(
                tuple(int(each) if kind is Kind.INTEGER else each for kind, each in zip(kinds, key, strict=True))
                for key in read_keys(given)
            )
        except (ValueError, TypeError) as error:
            msg = f"the key of {table.qualified} is {', '.join(table.key)}: a key given is not one of that"
            raise Fatal(
                msg, hint='write several columns as JSON: [[1, "a"], [2, "b"]]', status=ExitStatus.CONFIG
            ) from error

    def together(self, names: Sequence[str]) -> tuple[list[Table], list[Table]]:
        """Return the targets of the source tables that these words name, and all source tables that go there, first."""
        facts = self._known
        if facts is None:
            return [], []
        found = {table for name in names for table in self.chosen(facts, name)}
        while True:
            targets = self.mapping.tables([table for table in facts.tables if table in found])
            wider = {table for table in facts.tables if set(self.mapping.tables([table])) & set(targets)}
            if wider == found:
                return [table for table in facts.tables if table in found], targets
            found = wider

    def chosen(self, facts: Facts, name: str | None) -> list[Table]:
        """Return the source tables that a word names, by their own name or their target's; all without a word."""
        if name is None:
            return list(facts.tables)
        found = [
            table
            for table in facts.tables
            if name in {word for each in (table, *self.mapping.tables([table])) for word in (each.qualified, each.name)}
        ]
        if not found:
            there = ", ".join(table.qualified for table in facts.tables) or "none"
            msg = f"the pipeline has no table {name}"
            raise Fatal(msg, hint=f"name one of: {there}", status=ExitStatus.CONFIG)
        return found

    @contextmanager
    def ends(self, facts: Facts, patience_s: float) -> Iterator[Ends]:
        """Open both ends to be compared. Raises Fatal when one cannot be read back."""
        from cdcsync.verify import Ends  # noqa: PLC0415  one command alone needs it

        config, scan_source, scan_sink = self.config, self.source.scanner, self.sink.scanner
        if scan_source is None or scan_sink is None:
            system = config.source.system if scan_source is None else config.sink.system
            msg = f"rows in {system} cannot be read back to compare"
            raise Fatal(msg, hint="verify needs a database at both ends", status=ExitStatus.CONFIG)
        with ExitStack() as opened:
            source = scan_source(config.source.config, self.source_context)
            opened.callback(source.close)
            sink = scan_sink(config.sink.config, self.sink_context(facts))
            opened.callback(sink.close)
            stored = None if self.store[1] is config.sink.config else self._passed
            yield Ends(source, sink, self.mapping, stored, patience_s)

    def _passed(self) -> str | None:
        """Return the stored position, from the running pipeline when there is one."""
        try:
            return str(control.ask(self.config.socket, "status")["position"])
        except control.NotRunning:
            found = self.stored()
            return found.position if found else None


def _secrets(value: object) -> Iterator[str]:
    """Yield every secret in a section."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, dict):
        yield from _secrets(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets(item)
