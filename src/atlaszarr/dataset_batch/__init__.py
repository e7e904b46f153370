"""Builds of many section datasets: a task for each dataset, a journal of the finished ones, a table at the end."""
