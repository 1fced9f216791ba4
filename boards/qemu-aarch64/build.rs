//! Turns `board.toml` into the linker's numbers and the constants of `main.rs`.

fn main() {
    if let Err(error) = linker::configure() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
