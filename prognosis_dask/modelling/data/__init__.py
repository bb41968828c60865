"""From feature datasets and clinical tables to the rows and columns that models take."""
