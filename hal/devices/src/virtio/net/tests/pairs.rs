//! Several queue pairs: what is agreed, what the device is told, and what happens where it does not listen.

use super::*;

const KEY: [u8; KEY_BYTES] = [0x6d; KEY_BYTES];
const SEVERAL: u64 = feature::SEVERAL;

/// The configuration of a device that steers.
struct Fields {
    pairs: u16,
    key_bytes: u8,
    table_entries: u16,
    hash_types: u32,
}

const FIELDS: Fields = Fields { pairs: 4, key_bytes: 40, table_entries: 128, hash_types: 0x1ff };

fn table() -> [u8; TABLE_ENTRIES] {
    core::array::from_fn(|entry| (entry % 7) as u8)
}

fn port_with(
    features: u64,
    fields: &Fields,
    wanted: u16,
    prepare: impl FnOnce(&mut ModelState),
) -> (VirtioNetPort<ModelTransport>, Rc<RefCell<ModelState>>) {
    let mut bytes = configuration(1500).to_vec();
    bytes[8..10].copy_from_slice(&fields.pairs.to_le_bytes());
    bytes.extend([0; 5]);
    bytes.push(fields.key_bytes);
    bytes.extend(fields.table_entries.to_le_bytes());
    bytes.extend(fields.hash_types.to_le_bytes());
    let transport = ModelTransport::new(BASE | features, 8, &bytes);
    let state = transport.state.clone();
    state.borrow_mut().pairs = fields.pairs;
    prepare(&mut state.borrow_mut());
    let table = table();
    let steering = Some(DeviceSteering { key: &KEY, table: &table });
    let options = NetOptions { pairs: wanted, steering, ..NetOptions::default() };
    let mut dma = DmaRegion::leak_for_host(options.memory_bytes());
    let port = VirtioNetPort::over(transport, &mut dma, &options, wanted).unwrap();
    (port, state)
}

#[test]
fn a_device_that_hashes_is_told_key_and_table() {
    let (port, state) = port_with(SEVERAL, &FIELDS, 3, |_| {});
    assert_eq!((port.pairs(), port.steers()), (3, true));
    let state = state.borrow();
    assert_eq!(state.accepted & SEVERAL, SEVERAL);
    let [command] = &state.commands[..] else { panic!("{} commands", state.commands.len()) };
    assert_eq!(
        command[..10],
        [4, 1, 0x12, 0, 0, 0, 127, 0, 0, 0],
        "TCPv4 and TCPv6, 128 entries, the rest to queue 0"
    );
    for (entry, core) in command[10..266].chunks_exact(2).zip(table()) {
        assert_eq!(entry, [core % 3, 0]);
    }
    assert_eq!((&command[266..269], &command[269..]), (&[3, 0, 40][..], &KEY[..]));
    // Three pairs, the control queue behind the four that the device has, and changes of the configuration.
    assert_eq!(state.queues.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 8]);
    assert_eq!(state.vectors, [Some(0), Some(0), Some(0), Some(1), Some(1), Some(2), Some(2), None]);
}

#[test]
fn each_pair_carries_frames_of_its_own() {
    let (mut port, state) = port_with(SEVERAL, &FIELDS, 4, |_| {});
    for pair in 0..4u16 {
        let mut queue = port.take_queue(usize::from(pair)).unwrap();
        assert!(port.take_queue(usize::from(pair)).is_none());
        assert!(state.borrow_mut().take_kick(2 * pair), "its receive buffers are there");
        state.borrow_mut().queue(2 * pair).deliver(&with_header(0, 1, &frame(60, pair as u8)));
        assert_eq!(queue.halves().0.receive(<[u8]>::to_vec), Some(frame(60, pair as u8)));
        assert!(queue.halves().1.transmit(60, |to| to.fill(pair as u8), |_| None).is_ok());
        queue.flush();
        let (_, sent) = state.borrow_mut().queue(2 * pair + 1).fetch_frame().unwrap();
        assert_eq!(sent[12..], [pair as u8; 60]);
    }
}

#[test]
fn without_a_usable_hash_the_pairs_are_switched_on_all_the_same() {
    let poor = [
        (SEVERAL & !feature::RSS, FIELDS),
        (SEVERAL, Fields { key_bytes: 39, ..FIELDS }),
        (SEVERAL, Fields { table_entries: 64, ..FIELDS }),
        (SEVERAL, Fields { hash_types: 0b10, ..FIELDS }),
    ];
    for (features, fields) in poor {
        let (port, state) = port_with(features, &fields, 8, |_| {});
        assert_eq!((port.pairs(), port.steers()), (4, false));
        assert_eq!(state.borrow().accepted & feature::RSS, 0);
        assert_eq!(state.borrow().commands, [vec![4, 0, 4, 0]]);
    }
}

#[test]
fn a_device_that_cannot_have_several_keeps_its_one() {
    let poor = [
        (feature::MQ | feature::RSS, FIELDS),
        (feature::CTRL_VQ, FIELDS),
        (feature::CTRL_VQ | feature::RSS, Fields { key_bytes: 0, ..FIELDS }),
        (SEVERAL, Fields { pairs: 1, ..FIELDS }),
    ];
    for (features, fields) in poor {
        let (mut port, state) = port_with(features, &fields, 4, |_| {});
        assert_eq!((port.pairs(), port.steers()), (1, false));
        assert!(port.take_queue(1).is_none() && state.borrow().commands.is_empty());
        assert_eq!(state.borrow().accepted & SEVERAL, 0);
    }
    let (port, state) = port_with(SEVERAL, &FIELDS, 1, |_| {});
    assert_eq!((port.pairs(), state.borrow().accepted & SEVERAL), (1, 0), "one is wanted");
}

#[test]
fn a_command_that_is_refused_or_lost_costs_the_other_pairs() {
    let (port, state) = port_with(SEVERAL, &FIELDS, 4, |state| state.answers = vec![1]);
    assert_eq!((port.pairs(), port.steers(), state.borrow().commands.len()), (4, false, 2));
    let (mut port, _) = port_with(SEVERAL, &FIELDS, 4, |state| state.answers = vec![1, 1]);
    assert_eq!((port.pairs(), port.steers()), (1, false));
    assert!(port.take_queue(0).is_some() && port.take_queue(1).is_none());
    let (port, state) = port_with(SEVERAL, &FIELDS, 4, |state| state.deaf = true);
    assert_eq!((port.pairs(), state.borrow().commands.len()), (1, 0));
}

/// The whole port passes through the stack of core 0 at boot, several times.
#[test]
fn a_port_is_small_enough_for_the_stack() {
    assert!(size_of::<VirtioNetPort>() <= 48 << 10, "{}", size_of::<VirtioNetPort>());
}

#[test]
fn a_number_of_pairs_that_cannot_be_makes_the_device_unusable() {
    let mut bytes = configuration(1500).to_vec();
    bytes[8..10].copy_from_slice(&[0, 0x80]);
    let transport = ModelTransport::new(BASE | SEVERAL, 8, &bytes);
    let options = NetOptions { pairs: 2, ..NetOptions::default() };
    let mut dma = DmaRegion::leak_for_host(options.memory_bytes());
    assert_eq!(
        VirtioNetPort::over(transport, &mut dma, &options, 0).map(|_| ()).unwrap_err(),
        VirtioError::BadConfiguration
    );
}
