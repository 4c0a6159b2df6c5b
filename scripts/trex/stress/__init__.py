"""Experiments on a load balancer under load, whoever makes the load.

`search` finds rates, `experiments` says what is run, `generators` make load, `ledger` compares what they counted with
what Millrace counted, `store` keeps what was measured, `report` tells of it. Only `generators`, `device` and `lab`
touch anything but numbers.
"""
