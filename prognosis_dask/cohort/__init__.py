"""From folders and tables to cases."""
