"""How fast a cohort goes from its DICOM files to its features, by workers and by cases per task."""
