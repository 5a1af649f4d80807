"""The rules of this package in other libraries, each with its own extra."""
