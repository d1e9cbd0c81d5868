"""The command line: one file per command, thin; every option is built from :mod:`wsipipe.settings`."""
