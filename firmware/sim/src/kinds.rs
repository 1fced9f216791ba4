//! The kinds of events that a run counts.

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Kinds of events. Each is counted: one that never happens in many seeds proves nothing.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// All kinds, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As tables show it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

kinds! {
    /// A frame left the card or a host.
    Frame = "frame sent";
    /// The network lost a frame.
    FrameLost = "frame lost";
    /// The network carried a frame twice.
    FrameDoubled = "frame doubled";
    /// The network let later frames overtake one.
    FrameLate = "frame overtaken";
    /// The network changed bits of a frame, and left the checksum as it was.
    FrameDamaged = "frame damaged";
    /// The network changed bits of a frame, and made its checksum fit.
    FrameForged = "frame forged";
    /// A frame met a cut cable.
    FrameCut = "frame at a cut";
    /// A frame found no receive buffer.
    FrameOverrun = "frame without buffer";
    /// A cable was cut.
    Cut = "cable cut";
    /// A core went to sleep.
    Sleep = "core sleeps";
    /// An interrupt ended a core's sleep.
    Interrupt = "core woken";
    /// A sleeping data core was woken by another.
    CoreWoken = "core woken by another";
    /// A core paused for long.
    Pause = "core pauses";
    /// The card was started.
    Boot = "card starts";
    /// The card lost its power.
    PowerCut = "card loses power";
    /// A drive began an operation.
    MediaStart = "media begins";
    /// A drive ended an operation.
    MediaEnd = "media ends";
    /// A drive failed an operation.
    MediaError = "media fails";
    /// A drive was slow on purpose.
    MediaSlow = "media is slow";
    /// Running operations were forgotten by a reset.
    MediaAbandoned = "media abandoned";
    /// A block stayed in a volatile cache.
    CacheFilled = "block cached";
    /// A flush emptied a cache that had blocks in it.
    CacheFlushed = "cache flushed";
    /// A cache lost blocks.
    CacheLost = "cache lost";
    /// A write with FUA.
    ForcedWrite = "forced write";
    /// A drive was pulled.
    DriveRemoved = "drive removed";
    /// A pulled drive came back.
    DriveReturned = "drive returns";
    /// A drive was put into a slot.
    DriveInserted = "drive put in";
    /// The attention button of a slot was pressed.
    ButtonPressed = "attention button";
    /// A slot with a drive lost its power.
    SlotPowerLost = "slot without power";
    /// The card switched the slot of a drive off that was shut down in order.
    DriveOffInOrder = "drive off in order";
    /// A drive was taken out of a slot without power.
    DriveTakenOut = "drive taken out";
    /// The card's power button was pressed.
    PowerButton = "power button";
    /// The card ended in order and switched itself off.
    OrderlyEnd = "card ends in order";
    /// A drive that worked all the time was told of the card's end.
    EndHeard = "drive told of the end";
    /// A drive's doorbells went nowhere for a while.
    DriveDeaf = "drive deaf";
    /// A drive's link was down for a while.
    LinkDown = "link down";
    /// A drive's CSTS.RDY was stuck for a while.
    ReadyStuck = "ready stuck";
    /// A drive began a flood of events.
    EventFlood = "event flood";
    /// A drive told of an event.
    DriveEvent = "drive event";
    /// A wrong phase tag was injected.
    WrongPhase = "wrong phase";
    /// A queue head beyond the queue was injected.
    WrongHead = "wrong head";
    /// A drive set CSTS.CFS.
    DriveFatal = "drive fatal";
    /// A drive in trouble was well for a while: no error is explained by it any more.
    DriveWell = "drive well again";
    /// A command that never ends was injected.
    CommandHangs = "command hangs";
    /// The card found a command late, and sent an Abort.
    CommandLate = "command late";
    /// An Abort brought a late command home.
    AbortHelps = "abort helps";
    /// The card reset a drive.
    DriveReset = "drive reset";
    /// A host was told of a request whose pages are still at a drive.
    Quarantine = "quarantine entered";
    /// A drive ended an operation in the middle of a turn.
    MediaInTurn = "media ends in a turn";
    /// A core that was about to sleep found a completion that had come since its last poll.
    FoundByArming = "found by arming";
    /// A wrong command identifier was injected.
    WrongIdentifier = "wrong identifier";
    /// A doubled completion was injected.
    DoubledCompletion = "doubled completion";
    /// Old completions that come while their places have new commands were injected.
    LateCompletion = "late completion";
    /// Completions of places without a command were injected.
    StrangeCompletion = "strange completion";
    /// An error status was injected.
    InjectedStatus = "injected status";
    /// A host began to connect.
    HostConnects = "host connects";
    /// A host has its association and knows its namespaces.
    HostReady = "host ready";
    /// A connection of a host ended without its doing.
    ConnectionLost = "connection lost";
    /// A host left in good order.
    HostLeaves = "host leaves";
    /// A host died without a word.
    HostDies = "host dies";
    /// A host reset its connections.
    HostResets = "host resets";
    /// A host gave up on a command that took too long.
    HostGivesUp = "host gives up";
    /// A host stopped reading for a while.
    HostStalls = "host stalls";
    /// A read ended well, with the right data.
    ReadVerified = "read verified";
    /// A write ended well.
    WriteDone = "write done";
    /// A write was sent inside its capsule.
    WriteInCapsule = "write in capsule";
    /// A write was sent by R2T.
    WriteByTransfer = "write by R2T";
    /// A flush ended well.
    FlushDone = "flush done";
    /// A Flush failed because a cache was lost: its host knows.
    LossTold = "loss told";
    /// A Write Zeroes ended well.
    ZeroesDone = "write zeroes done";
    /// A Dataset Management command ended well.
    DeallocateDone = "deallocate done";
    /// A Compare found the same.
    CompareSame = "compare same";
    /// A Compare found a difference.
    CompareDiffers = "compare differs";
    /// A Verify ended well.
    VerifyDone = "verify done";
    /// A fused pair has written.
    FusedDone = "fused pair done";
    /// The Compare of a fused pair found a difference.
    FusedDiffers = "fused pair differs";
    /// A fused pair failed with statuses that the faults allow.
    FusedFailed = "fused pair failed";
    /// A Copy ended well.
    CopyDone = "copy done";
    /// An Abort of a host has ended a request for events.
    Aborted = "request aborted";
    /// An Abort of a host came to nothing.
    AbortInVain = "abort in vain";
    /// A host has set CC.SHN.
    HostShutsDown = "host shuts down";
    /// CSTS.SHST told a host that its controller is shut down.
    ShutdownDone = "shutdown done";
    /// An admin command ended.
    AdminDone = "admin command done";
    /// A controller told a host something by itself.
    EventHeard = "event heard";
    /// A command outside of its namespace was refused.
    OutOfRange = "out of range refused";
    /// A digest showed that data was changed on the way.
    DataForged = "data digest wrong";
    /// A command failed with a status that the faults allow.
    CommandFailed = "command failed";
    /// A connection was lost with a write under way: nobody knows what became of it.
    WriteUnknown = "write unknown";
    /// A write of a lost connection is over for its host, which goes on with others: it must not land any more.
    WriteFenced = "lost write fenced";
    /// The card held a Connect until writes of its host's old association had ended.
    ConnectHeld = "connect held";
    /// A block was read that more than one write may have left.
    BlockNarrowed = "block narrowed";
    /// A hostile host opened a connection.
    HostileOpens = "hostile opens";
    /// A hostile host sent bytes.
    HostileSends = "hostile sends";
    /// A hostile host put a raw frame on the wire.
    HostileFrame = "hostile frame";
    /// A hostile connection was ended by the card.
    HostileEnded = "hostile ended";
    /// All was back as after the start.
    Quiet = "all is back";
}
