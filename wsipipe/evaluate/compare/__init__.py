"""Systems beside each other: a plan of what is compared, its cells, tables with intervals, paired differences."""
