"""The prediction of one new scan by a saved model, for the command line and for the web."""
