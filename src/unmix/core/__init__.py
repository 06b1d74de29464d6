"""The mathematics: arrays in, a frozen result out. Nothing here knows AnnData, pandas, plotting or Dask's graphs."""
