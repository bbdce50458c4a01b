"""Arrays in, arrays out: no Dask, no store, no job file."""
