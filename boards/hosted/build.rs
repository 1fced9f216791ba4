//! Turns `board.toml` into the constants of `main.rs`.

fn main() {
    if let Err(error) = linker::configure() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
