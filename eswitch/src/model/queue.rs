//! Flow queues: enqueue, push, pull; the application's end and the device's end.
