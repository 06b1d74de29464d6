"""The only code that knows AnnData, MuData, pandas and Dask: reading matrices, writing slots, tools."""
