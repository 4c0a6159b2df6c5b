//! What mlx5 would refuse, with which errno, without touching the device.
