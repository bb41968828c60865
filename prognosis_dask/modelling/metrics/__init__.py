"""What a prediction is worth: discrimination, accuracy, calibration and usefulness, for survival and for classes.

Pure functions of arrays. Those that take ``bootstrap_weights``, how often each case was drawn, shape (draws, cases),
return one value per draw: one call gives a bootstrap (:mod:`prognosis_dask.modelling.metrics.intervals`).
"""
