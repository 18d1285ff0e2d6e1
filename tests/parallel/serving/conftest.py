"""What tests of scenario files share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a scenario with changes; None takes an entry out."""

    def written(base: Mapping[str, Any], **changes: Any) -> Path:
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump({key: value for key, value in {**base, **changes}.items() if value is not None}))
        return file

    return written
