"""What a balancer adds to a packet's way: on real packets, between two network namespaces of this machine."""
