//! How big and how fast a device is: named profiles.
