/// The card of a test: four drives, one of them with 4096-byte blocks, on a wire to the host.
struct Card {
    vm: Vm,
    log: CardLog,
    lines: Vec<String>,
    copy: std::fs::File,
    ready: Ready,
}

impl Card {
    fn start(image: &Image, wire: &Path, test: &str) -> Result<Self> {
        let mut command = Machine::of("qemu-aarch64")?.command();
        command.arg("-no-reboot").arg("-kernel").arg(&image.flat).args(["-append", "ip=10.0.0.1/24"]);
        let folder = paths::state()?.join("test-drives").join(format!("linux-{test}"));
        // Each test starts with empty drives.
        let _ = std::fs::remove_dir_all(&folder);
        for number in 0..4 {
            let block_size = if number == 3 { 4096 } else { 512 };
            let name = format!("test-drive{number}");
            Drive { name, size: "1G".to_owned(), block_size, ..Drive::default() }
                .add(&mut command, &folder)?;
        }
        qemu::add_port(
            &mut command,
            0,
            &format!("stream,server=on,addr.type=unix,addr.path={}", qemu::escaped(wire)),
        );
        let logs = paths::logs()?;
        let vm = Vm::start(&mut command, &logs.join(format!("linux-{test}-card.serial")))?;
        let copy = std::fs::File::create(logs.join(format!("linux-{test}-card.log")))?;
        let nobody = Ready { namespaces: 0, nqn: String::new(), address: String::new(), port: 0 };
        let mut card = Self { vm, log: CardLog::new(&image.elf)?, lines: Vec::new(), copy, ready: nobody };
        let deadline = Instant::now() + BOOT_LIMIT;
        let mut seen = 0;
        while Instant::now() < deadline {
            card.listen(Duration::from_millis(50))?;
            if let Some(ready) = card.lines[seen..].iter().find_map(|line| ready(line)) {
                card.ready = ready;
                return Ok(card);
            }
            seen = card.lines.len();
        }
        bail!("the card is not ready after {} s", BOOT_LIMIT.as_secs())
    }

    /// Takes what the card says; an error when it ended or panicked.
    fn listen(&mut self, wait: Duration) -> Result<()> {
        let bytes = self.vm.read(wait).context("the card")?;
        for line in self.log.feed(&bytes) {
            writeln!(self.copy, "{}", line.plain)?;
            let bad = line.text.starts_with("*** ");
            self.lines.push(line.text);
            if bad {
                bail!("the card broke down");
            }
        }
        Ok(())
    }

    /// `#: same REGEX`: once the last host is gone, the card's log has such a line again, and its match is the first
    /// one's. Where the pattern has two groups, they are equal too (so many free of so many).
    fn afterwards(&mut self, test: &Test, last_host_started: usize) -> Result<()> {
        let Some(pattern) = test.field("same") else { return Ok(()) };
        let pattern = Regex::new(pattern)?;
        let deadline = Instant::now() + IDLE_LIMIT;
        loop {
            self.listen(Duration::from_millis(200))?;
            let first = self.lines.iter().find_map(|line| pattern.captures(line));
            let last = self.lines[last_host_started..].iter().rev().find_map(|line| pattern.captures(line));
            let whole = last.as_ref().is_some_and(|last| match (last.get(1), last.get(2)) {
                (Some(free), Some(all)) => free.as_str() == all.as_str(),
                _ => true,
            });
            let text = |found: &Option<Captures>| {
                found.as_ref().map_or_else(|| "no such line".to_owned(), |found| found[0].to_owned())
            };
            let (first, last) = (text(&first), text(&last));
            if whole && first == last {
                println!("  the card afterwards: {last}");
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the card keeps something\nat first:   {first}\nafterwards: {last}");
            }
        }
    }
}

