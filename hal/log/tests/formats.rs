//! Every form that the facade promises compiles; the card's side of it is compiled by whoever logs.

#[test]
fn promised_forms_compile() {
    let address = core::net::IpAddr::from([10, 0, 0, 1]);
    hal_log::trace!("{} {:?} {:x} {:#x} {:02x} {:#010x} {}", 1u8, "a", 2u16, 3u32, 4u64, 5u64, address);
    hal_log::debug!("nothing");
    hal_log::info!("{}", true,);
    if address.is_loopback() {
        hal_log::error!("{}", 1);
    }
}
