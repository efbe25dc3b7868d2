"""What has nothing to do with search: whole files, intervals, tables, plots, streams, and a loop of training steps."""
