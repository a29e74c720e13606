"""The test suite: a package so that test modules can import each other by their full name."""
