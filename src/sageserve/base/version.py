"""The version of this package, which results carry. Knows nothing else; CHANGELOG.md says what changed."""

__version__ = "0.1.0"
