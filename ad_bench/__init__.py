"""adbench: the tables of industrial image anomaly detection, reproduced by running them."""

__version__ = "0.1.0"
