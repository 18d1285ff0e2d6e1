"""XML as a tree that knows its lines, read safely: no document type, so no entity to expand and nothing to fetch."""

from dataclasses import dataclass, field
from xml.parsers import expat

from topo.errors import SpecError
from topo.formats.base import Source

MAX_DEPTH = 64
"""No element stands deeper: the formats here need less than 20."""


@dataclass
class Element:
    """One element: its tag without namespace, its attributes, the line of its start, its children and its text."""

    tag: str
    attributes: dict[str, str]
    line: int
    children: list["Element"] = field(default_factory=list)
    text: str = ""


class _Refused(Exception):  # noqa: N818 - leaves expat's callbacks, never this module
    """Carries the fault out of a callback of expat."""

    def __init__(self, error: SpecError) -> None:
        self.error = error


class _Builder:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.parser = expat.ParserCreate("utf-8")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.data
        self.parser.StartDoctypeDeclHandler = self.doctype
        self.stack: list[Element] = []
        self.root: Element | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        if len(self.stack) == MAX_DEPTH:
            raise _Refused(self.source.error(line, f"is nested deeper than {MAX_DEPTH} elements"))
        element = Element(name.rpartition(":")[2], attributes, line)
        if self.stack:
            self.stack[-1].children.append(element)
        else:
            self.root = element
        self.stack.append(element)

    def end(self, _name: str) -> None:
        self.stack.pop()

    def data(self, text: str) -> None:
        if self.stack:
            self.stack[-1].text += text

    def doctype(self, *_: object) -> None:
        line = self.parser.CurrentLineNumber
        raise _Refused(
            self.source.error(line, "declares a document type, which could define entities", "remove <!DOCTYPE …>")
        )


def parse_xml(source: Source, root: str) -> Element:
    r"""Return the tree of an XML document whose outermost element is `root`.

    Raises
    ------
    SpecError
        With the line, where the document is malformed, ends early, declares a document type or has another root.

    Examples
    --------
    >>> tree = parse_xml(Source("a.xml", '<system version="1">\n  <cpu numaid="0"/>\n</system>'), "system")
    >>> tree.children[0].tag, tree.children[0].line, tree.children[0].attributes
    ('cpu', 2, {'numaid': '0'})
    """
    builder = _Builder(source)
    try:
        builder.parser.Parse(source.text.encode("utf-8", "surrogatepass"), True)
    except expat.ExpatError as error:
        inside = f" inside <{builder.stack[-1].tag}>" if builder.stack else ""
        reason = expat.ErrorString(error.code)
        raise source.error(error.lineno, f"is not XML{inside} ({reason})", "close every element") from None
    except _Refused as refused:
        raise refused.error from None
    if builder.root is None or builder.root.tag != root:
        found = builder.root.tag if builder.root else None
        raise source.error(builder.root.line if builder.root else 1, f"is not <{root}>", f"expected <{root}>", found)
    return builder.root
