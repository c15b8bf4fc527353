"""Spark standalone and Ray on this machine, on loopback."""
