"""docs/settings.md is what the settings' dataclasses say now."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from nnunet_semcl.methods.ideal.settings import IDEALSettings
from nnunet_semcl.methods.semcl.settings import SemCLSettings

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_is_not_stale():
    written = subprocess.run(
        [sys.executable, "-c", "import settings_page; print(settings_page.page(), end='')"],
        cwd=DOCS,
        capture_output=True,
        text=True,
    )
    assert written.returncode == 0, written.stderr
    assert (DOCS / "settings.md").read_text() == written.stdout, "run: python docs/settings_page.py"


def test_every_setting_is_on_it():
    page = (DOCS / "settings.md").read_text()
    for settings in (SemCLSettings, IDEALSettings):
        assert all(f"| `{field.name}` |" in page for field in fields(settings) if field.name != "reasons")
