"""The Grafana dashboard, made from the table of all metrics."""
