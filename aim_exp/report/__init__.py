"""Reports: records to tables, figures and a page. Nothing here runs an experiment."""
