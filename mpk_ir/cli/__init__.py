"""The command line: `mpk`."""
