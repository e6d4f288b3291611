"""docs/theory.md: its examples run, and print what they say."""

import doctest
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "theory.md"


def test_the_examples_of_the_page_run():
    # Prose becomes blank lines, so that a failure names the line of the page.
    text = re.sub(
        r"(^|```\n)(.*?)(```python\n|\Z)", lambda found: "\n" * found[0].count("\n"), PAGE.read_text(), flags=re.DOTALL
    )
    examples = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
    assert results.attempted == PAGE.read_text().count(">>> ") > 20
    assert results.failed == 0
