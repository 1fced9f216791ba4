//! Stand-ins for hardware, stricter than hardware, for tests on the host.
