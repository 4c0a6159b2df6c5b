"""Benches of the software eSwitch from outside: they print numbers and assert nothing about time."""
