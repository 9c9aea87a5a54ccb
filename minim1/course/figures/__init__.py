"""The figures of the chapters, one module each: functions that take numbers and return a plotly figure for `show`."""
