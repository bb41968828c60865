"""pyradiomics' features of one case: the values of ``execute()`` on the full images, at a fraction of its time."""
