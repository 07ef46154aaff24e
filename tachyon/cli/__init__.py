"""The command line: `python -m tachyon send`, `recv` and `demo`. Nothing here is imported by `import tachyon`."""
