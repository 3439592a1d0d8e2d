"""One target from its sources to the published file, and the folder in which that happens."""
