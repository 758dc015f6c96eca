"""What is asked about topics beside reading them: whose they are, what tables they hold, whether all is well."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from cdcsync.connectors import Finding, Log, Reach, Severity, Sharing, SourceSpec
from cdcsync.errors import End, ExitStatus, Fatal
from cdcsync.kafka import start, topics
from cdcsync.kafka.decoding.layouts import Layouts
from cdcsync.kafka.decoding.plain import json_table, text_table
from cdcsync.kafka.errors import error_of, verdict
from cdcsync.kafka.group import KafkaGroup
from cdcsync.kafka.position import KafkaPosition, Place, whole
from cdcsync.kafka.registry import Registry
from cdcsync.kafka.source import KafkaTopics
from cdcsync.kafka.source_config import Format, KafkaSource
from cdcsync.kafka.start import Chosen
from cdcsync.kafka.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdcsync.change import Table
    from cdcsync.ports import Group, Source, SourceContext

_APPENDED: Final = frozenset({Format.JSON, Format.TEXT})


def source_of(config: KafkaSource, context: SourceContext) -> Source:
    """Return the source of a pipeline that reads all partitions."""
    return KafkaTopics(config, context)


def group_of(config: KafkaSource, context: SourceContext) -> Group | None:
    """Return what shares the partitions among several processes, where a group is named."""
    return KafkaGroup(config, context) if config.group is not None else None


def lanes(config: KafkaSource, context: SourceContext) -> list[str]:
    """Return the partitions, each `TOPIC/NUMBER`."""
    with closing(Topics(config, f"cdcsync-{context.pipeline}")) as there:
        return [f"{name}/{number}" for name, number in Chosen(there.find()).partitions()]


def reader_of(config: KafkaSource, context: SourceContext) -> Source:
    """Return a reader that tells the group nothing."""
    return KafkaTopics(config, context, tail=True)


def identity(config: KafkaSource, context: SourceContext) -> str:
    """Return `kafka:CLUSTER`."""
    with closing(Topics(config, f"cdcsync-{context.pipeline}")) as there:
        return there.identity()


def tables(config: KafkaSource, context: SourceContext) -> list[Table]:
    """Return the tables that are known before a message is read: those of plain values, and those declared."""
    with closing(Topics(config, f"cdcsync-{context.pipeline}")) as there:
        found = list(there.find())
    known = [_table_of(config, name) for name in found] if config.format in _APPENDED else list(_declared(config))
    return [table for table in known if context.selection.wants(table.schema, table.name) is not None]


def _table_of(config: KafkaSource, topic: str) -> Table:
    """Return the table of a topic of plain values."""
    if config.format is Format.TEXT:
        return text_table(topic)
    return json_table(topic, Layouts(config.reading().declared))[0]


def _declared(config: KafkaSource) -> Iterator[Table]:
    layouts = Layouts(config.reading().declared)
    for name, table in config.tables.items():
        if table.columns and table.key is not None:
            schema, _, plain = name.rpartition(".")
            yield layouts.of((schema, plain), None, (), ()).table


def check(config: KafkaSource, context: SourceContext) -> list[Finding]:
    """Look at the topics, whether they may be read, and at what their settings mean for what is read."""
    found: list[Finding] = []
    with closing(Topics(config, f"cdcsync-{context.pipeline}")) as there:
        try:
            named = there.find()
        except Fatal as fatal:
            return [Finding(Severity.ERROR, "topics", fatal.args[0], fatal.hint)]
    for name, topic in named.items():
        found.append(Finding(Severity.OK, f"topic {name}", f"{topic.partitions} partition(s)"))
    if not named:
        found.append(Finding(Severity.WARNING, "topics", "no topic is named so yet", "look at `topics`"))
    with _consumer(config, context) as consumer:
        partitions = Chosen(named).partitions()
        found += _refusals(consumer, partitions, _group(config, context))
    return [*found, *_registry(config)]


def _registry(config: KafkaSource) -> Iterator[Finding]:
    """Yield whether the registry answers, where there is one. Raises Transient."""
    if config.registry is None:
        return
    url = config.registry.url
    try:
        count = len(Registry.of(config.registry, End.SOURCE).subjects())
    except Fatal as fatal:
        yield Finding(Severity.ERROR, f"registry {url}", fatal.args[0], fatal.hint)
    else:
        yield Finding(Severity.OK, f"registry {url}", f"{count} subject(s)")


def _refusals(consumer: Consumer, partitions: list[tuple[str, int]], group: str) -> Iterator[Finding]:
    """Yield what may not be done."""
    questions: tuple[Callable[[], object], ...] = (
        lambda: topics.ends(consumer, partitions),
        lambda: topics.told(consumer, partitions, group),
    )
    for ask in questions:
        try:
            ask()
        except Fatal as fatal:
            yield Finding(Severity.ERROR, "rights", fatal.args[0], fatal.hint)


def judge(config: KafkaSource, context: SourceContext, encoded: str) -> list[Finding]:
    """Look whether the topics still have what comes next."""
    stored = KafkaPosition.decode(encoded)
    with closing(Topics(config, f"cdcsync-{context.pipeline}")) as there:
        chosen = Chosen(there.find())
    with _consumer(config, context) as consumer:
        try:
            begin = start.again(consumer, config, stored, chosen, stored.epoch)
        except Fatal as fatal:
            return [Finding(Severity.ERROR, "position", fatal.args[0], fatal.hint)]
        bounds = topics.ends(consumer, list(begin.here.places))
    behind = sum(high - begin.here.places[key].offset for key, (_, high) in bounds.items())
    return [Finding(Severity.OK, "position", f"{behind} record(s) wait in {len(bounds)} partition(s)")]


def drop(config: KafkaSource, context: SourceContext) -> list[str]:
    """Remove the consumer group; the topics are not ours. Raises Fatal while it has members."""
    group = _group(config, context)
    admin = AdminClient({**config.settings(f"cdcsync-{context.pipeline}"), "log_level": 0})
    doing = f"removing consumer group {group}"
    try:
        admin.delete_consumer_groups([group], request_timeout=topics.PATIENCE_S)[group].result(topics.PATIENCE_S + 1)
    except KafkaException as error:
        found = error_of(error)
        if found.code() in {KafkaError.GROUP_ID_NOT_FOUND, KafkaError.INVALID_GROUP_ID}:
            return []
        if found.code() == KafkaError.NON_EMPTY_GROUP:
            msg = f"consumer group {group} has members"
            raise Fatal(msg, hint="stop every process of the pipeline first", status=ExitStatus.OWNERSHIP) from error
        raise verdict(found, End.SOURCE, doing) from error
    return [f"consumer group {group}"]


def reach(config: KafkaSource, context: SourceContext) -> Reach:
    """Return from where to where the topics can be read."""
    with closing(Topics(config, f"cdcsync-{context.pipeline}")) as there:
        found = there.find()
    with _consumer(config, context) as consumer:
        bounds = topics.ends(consumer, Chosen(found).partitions())
    first, last = (
        KafkaPosition(0, found, {key: Place(bound[at]) for key, bound in bounds.items()}).encode() for at in (0, 1)
    )
    return Reach(first, last, "the topics have it as long as their retention says")


def at_time(config: KafkaSource, context: SourceContext, time_us: int) -> str:
    """Return the position of the first records of that time or later; a partition's end where it has none."""
    with closing(Topics(config, f"cdcsync-{context.pipeline}")) as there:
        found = there.find()
    partitions = Chosen(found).partitions()
    with _consumer(config, context) as consumer:
        offsets = topics.at_time(consumer, partitions, time_us // 1000)
        bounds = topics.ends(consumer, partitions)
    places = {key: Place(offset if offset >= 0 else bounds[key][1]) for key, offset in offsets.items()}
    return KafkaPosition(0, found, places).encode()


def _group(config: KafkaSource, context: SourceContext) -> str:
    return config.group_of(context.pipeline)


@contextmanager
def _consumer(config: KafkaSource, context: SourceContext) -> Iterator[Consumer]:
    """Give a consumer that reads nothing."""
    name = f"cdcsync-{context.pipeline}-check"
    consumer = Consumer(topics.reading(config, name, _group(config, context)))
    try:
        yield consumer
    finally:
        consumer.close()


SOURCE: Final = SourceSpec(
    config=KafkaSource,
    make=source_of,
    decode=KafkaPosition.decode,
    identity=identity,
    tables=tables,
    check=check,
    drop=drop,
    tail=reader_of,
    log=Log(reader_of, reach, at_time),
    late=True,
    judge=judge,
    sharing=Sharing(group_of, lanes, KafkaPosition.part, whole),
)
