"""UMAP, a mixture, and the grid with its verdict, as scikit-learn estimators on NumPy and Dask arrays."""
