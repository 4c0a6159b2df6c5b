"""The lab: real clients and real servers in network namespaces, with Millrace between them.

In reading order: `net` (namespaces and links), `topology` (who is connected to whom), `servers` and
`clients` (Debian's programs, started and understood), `millrace` (configuration, process, metrics),
`eswitch` (the software one beneath it), `lab` (all of it as one context manager), `traffic` (connections by
the thousand), `quickstart` (what a newcomer runs). Of the software eSwitch alone: `telemetry` (what it is asked
by), `testpmd` (Debian's, with the driver loaded) and `flowscript` (files of its commands, checked).

The quickstart and the system tests in tests/ both use it. It needs root, because it makes network
namespaces; it changes nothing outside them and removes what it made.
"""
