"""The README and the docs, and the code in them."""

from support.places import ROOT

README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
OPERATE = (ROOT / "docs" / "operate.md").read_text()
