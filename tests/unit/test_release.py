"""The changelog's heading as the release script writes it, and what it refuses."""

import pytest
from release import ReleaseError, dated

CHANGELOG = "# Changelog\n\n## 0.2.0 (unreleased)\n\n- A thing.\n\n## 0.1.0 (2026-01-02)\n\n- The first.\n"


def test_the_heading_of_what_is_not_released_gets_version_and_day():
    assert dated(CHANGELOG, "0.2.1", "2026-11-26") == CHANGELOG.replace("0.2.0 (unreleased)", "0.2.1 (2026-11-26)")
    alone = "# Changelog\n\n## 0.1.0 (unreleased)\n\n- A thing.\n"
    assert dated(alone, "0.1.0", "2026-11-26").count("## 0.1.0 (2026-11-26)") == 1


@pytest.mark.parametrize(
    ("changelog", "version", "said"),
    [
        (CHANGELOG, "next", "'next' is no version"),
        (CHANGELOG, "0.1.0", "0.1.0 is not after 0.1.0"),
        (CHANGELOG, "0.0.9", "0.0.9 is not after 0.1.0"),
        (CHANGELOG.replace("unreleased", "2026-02-03"), "0.3.0", "does not begin with a heading"),
        (CHANGELOG.replace("- A thing.\n", ""), "0.2.0", "nothing below its first heading"),
    ],
)
def test_what_cannot_be_released_is_said(changelog, version, said):
    with pytest.raises(ReleaseError, match=said):
        dated(changelog, version, "2026-11-26")
