"""JSON and YAML as dicts and lists that know their lines, read safely: plain values only, each key once."""

import re
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any

from topo.errors import SpecError
from topo.formats.base import Source

if TYPE_CHECKING:
    import yaml

MAX_DEPTH = 64
"""Nothing stands deeper."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\n]', re.DOTALL)


class Located(dict[Any, Any]):
    """A dict that knows the line where it starts and, from YAML, the line of each key."""

    def __init__(self, pairs: Any = (), line: int = 0, lines: dict[Any, int] | None = None) -> None:
        super().__init__(pairs)
        self.line = line
        self.lines = lines or {}

    def at(self, key: Any) -> int:
        """Return the line of a key; of the dict, where that is all that is known."""
        return self.lines.get(key, self.line)


def line_of(value: Any, default: int = 0) -> int:
    """Return the line where a value starts, if it is known."""
    return value.line if isinstance(value, Located) else default


def _object_lines(text: str) -> Iterator[int]:
    """Yield the line of the opening brace of each object, in the order in which they close."""
    line, opened = 1, []
    for token in _TOKEN.finditer(text):
        match token.group()[0]:
            case "\n":
                line += 1
            case "{":
                opened.append(line)
            case "}" if opened:
                yield opened.pop()


def parse_json(source: Source) -> Any:
    r"""Return the value of a JSON document; its objects are `Located`.

    Raises
    ------
    SpecError
        With the line, where it is malformed, ends early or repeats a key.

    Examples
    --------
    >>> parse_json(Source("a.json", '{"nodes":\n [{"id": 1},\n {"id": 2}]}'))["nodes"][1].line
    3
    """
    import json

    lines = _object_lines(source.text)

    def located(pairs: list[tuple[str, Any]]) -> Located:
        made = Located(pairs, next(lines, 0))
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise source.error(made.line, f"says {twice!r} twice in one object", "keep one")
        return made

    try:
        return json.loads(source.text, object_pairs_hook=located)
    except json.JSONDecodeError as error:
        raise source.error(error.lineno, f"is not JSON ({error.msg})", "close every bracket and quote") from None
    except RecursionError:
        raise source.error(1, "is nested too deep") from None
    except ValueError as error:
        if isinstance(error, SpecError):
            raise
        raise source.error(1, f"holds a number that cannot be read ({error})") from None


def parse_yaml(source: Source) -> Any:
    r"""Return the value of a YAML document; its mappings are `Located`. Anchors are shared, not copied.

    Raises
    ------
    SpecError
        With the line, where it is malformed, repeats a key or holds anything but plain values.

    Examples
    --------
    >>> parsed = parse_yaml(Source("a.yml", "topology: [ Ring ]\nnpus_count: [ 4 ]"))
    >>> parsed, parsed.at("npus_count")
    ({'topology': ['Ring'], 'npus_count': [4]}, 2)
    """
    import yaml

    try:
        loader = yaml.SafeLoader(source.text)
        try:
            node = loader.get_single_node()
            return None if node is None else _Plain(source, loader).value(node, 0)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else source.text[: getattr(error, "position", 0)].count("\n") + 1
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "malformed"
        raise source.error(line, f"is not YAML ({problem})", "close every bracket and quote") from None
    except RecursionError:
        raise source.error(1, "is nested too deep") from None


class _Plain:
    """Makes plain values of YAML nodes, each node once."""

    def __init__(self, source: Source, loader: "yaml.SafeLoader") -> None:
        self.source, self.loader = source, loader
        self.made: dict[int, Any] = {}
        self.open: set[int] = set()

    def value(self, node: "yaml.Node", depth: int) -> Any:
        import yaml

        line = node.start_mark.line + 1
        if id(node) in self.made:
            return self.made[id(node)]
        if id(node) in self.open or depth > MAX_DEPTH:
            raise self.source.error(line, "is nested too deep, or in itself")
        self.open.add(id(node))
        made: Any
        if isinstance(node, yaml.MappingNode):
            made = self.mapping(node, depth, line)
        elif isinstance(node, yaml.SequenceNode):
            made = [self.value(one, depth + 1) for one in node.value]
        else:
            made = self.scalar(node, line)
        self.made[id(node)] = made
        return made

    def mapping(self, node: "yaml.MappingNode", depth: int, line: int) -> Located:
        made = Located((), line)
        for key_node, value_node in node.value:
            key = self.value(key_node, depth + 1)
            at = key_node.start_mark.line + 1
            if not isinstance(key, Hashable) or key in made:
                raise self.source.error(at, f"says {key!r} twice, or has a key that is no word", "keep one word")
            made[key] = self.value(value_node, depth + 1)
            made.lines[key] = at
        return made

    def scalar(self, node: "yaml.Node", line: int) -> Any:
        try:
            return self.loader.construct_object(node, deep=True)
        except (ValueError, OverflowError) as error:
            raise self.source.error(line, f"holds a value that cannot be read ({error})") from None
