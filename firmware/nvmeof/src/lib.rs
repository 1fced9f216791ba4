//! NVMe/TCP target: PDUs, queues and command slots on top of controller.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
